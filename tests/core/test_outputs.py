"""Results are there whole or not at all, whatever stops the run that makes them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.lib.core import outputs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def final(tmp_path):
    return tmp_path / "models" / "seed-0"


@pytest.fixture
def old(final):
    """A result of an earlier run at the final place."""
    final.mkdir(parents=True)
    (final / "old.txt").write_text("old")
    return final


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def make(final, name="new.txt"):
    with outputs.whole_directory(final) as directory:
        (directory / name).write_text("new")


def stop_inside(final, stop):
    with outputs.whole_directory(final) as directory:
        (directory / "half.txt").write_text("half")
        raise stop


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def leftover(final, pid, infix=""):
    path = final.parent / f".{final.name}{infix}.{pid}{outputs.PARTIAL}"
    path.mkdir(parents=True)
    (path / "half.txt").write_text("half")
    return path


def test_the_directory_starts_empty_and_beside_its_final_place(final):
    with outputs.whole_directory(final) as directory:
        assert names(directory) == []
        assert directory.parent == final.parent


def test_the_final_place_is_filled_when_the_block_ends_well(final):
    with outputs.whole_directory(final) as directory:
        (directory / "new.txt").write_text("new")
        assert not final.exists()
    assert names(final) == ["new.txt"]
    assert names(final.parent) == [final.name]


def test_an_old_result_is_replaced_whole(old):
    with outputs.whole_directory(old) as directory:
        (directory / "new.txt").write_text("new")
        assert names(old) == ["old.txt"]
    assert names(old) == ["new.txt"]
    assert names(old.parent) == [old.name]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_behind(final, stop):
    with pytest.raises(stop):
        stop_inside(final, stop)
    assert names(final.parent) == []


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_result_alone(old, stop):
    with pytest.raises(stop):
        stop_inside(old, stop)
    assert names(old.parent) == [old.name]
    assert names(old) == ["old.txt"]


@pytest.mark.parametrize("infix", ["", ".old"])
def test_leftovers_of_dead_processes_are_removed(final, dead_pid, infix):
    leftover(final, dead_pid, infix)
    make(final)
    assert names(final.parent) == [final.name]


def test_a_leftover_file_of_a_dead_process_is_removed(final, dead_pid):
    final.parent.mkdir(parents=True)
    (final.parent / f".{final.name}.{dead_pid}{outputs.PARTIAL}").write_text("half")
    make(final)
    assert names(final.parent) == [final.name]


def test_what_a_living_process_is_writing_is_left_alone(final):
    path = leftover(final, os.getppid())
    make(final)
    assert names(path) == ["half.txt"]


def test_what_a_living_process_of_another_user_is_writing_is_left_alone(final, monkeypatch):
    def forbidden(pid, signal):
        raise PermissionError

    path = leftover(final, 12345)
    monkeypatch.setattr(os, "kill", forbidden)
    make(final)
    assert names(path) == ["half.txt"]


def test_leftovers_of_other_results_are_left_alone(final, dead_pid):
    path = leftover(final.with_name("seed-1"), dead_pid)
    make(final)
    assert path.exists()


def test_a_leftover_of_an_earlier_process_with_this_pid_is_no_obstacle(old):
    leftover(old, os.getpid(), ".old")
    make(old)
    assert names(old.parent) == [old.name]


def killed_in_the_block(final):
    """Runs a process that fills the directory and is killed before the block ends."""
    script = (
        "import sys, time; from pathlib import Path; from stages.lib import outputs\n"
        "with outputs.whole_directory(Path(sys.argv[1])) as directory:\n"
        "    (directory / 'half.txt').write_text('half')\n"
        "    print('inside', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(final)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "inside\n"
        process.kill()


def test_a_kill_leaves_nothing_at_the_final_place_and_the_next_run_cleans_up(final):
    killed_in_the_block(final)
    assert not final.exists()
    assert len(names(final.parent)) == 1
    make(final)
    assert names(final.parent) == [final.name]
    assert names(final) == ["new.txt"]


def test_a_kill_leaves_the_old_result_and_the_next_run_cleans_up(old):
    killed_in_the_block(old)
    assert names(old) == ["old.txt"]
    make(old)
    assert names(old.parent) == [old.name]
    assert names(old) == ["new.txt"]


def test_json_is_read_back_with_its_keys_in_order(tmp_path):
    path = tmp_path / "new folder" / "a.json"
    value = {"b": 1, "a": [0.1, None, "é"]}
    outputs.write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["b", "a"]
    assert "é" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path, value):
    path = tmp_path / "a.json"
    outputs.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        outputs.write_json(path, {"a": [value]})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


def test_text_replaces_the_old_text_whole(tmp_path):
    path = tmp_path / "a.txt"
    outputs.write_text(path, "a longer text")
    outputs.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_file_is_there_whole_or_not_at_all(tmp_path, stop):
    path = tmp_path / "new folder" / "a.bin"
    for content in (b"old", b"a newer one"):
        with outputs.whole_file(path) as partial:
            partial.write_bytes(content)
            assert path.exists() == (content != b"old")
        assert path.read_bytes() == content

    def write_half():
        with outputs.whole_file(path) as partial:
            partial.write_bytes(b"half")
            raise stop

    with pytest.raises(stop):
        write_half()
    assert path.read_bytes() == b"a newer one"
    assert names(path.parent) == ["a.bin"]


def cells(tmp_path, value):
    path = tmp_path / "a.csv"
    outputs.write_csv(path, ["value", "end"], [{"value": value, "end": "end"}])
    header, line = path.read_bytes().decode().removesuffix("\n").split("\n")
    assert header == "value,end"
    return line


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (1 / 3, "0.333333"),
        (2 / 3, "0.666667"),
        (1.0, "1.0"),
        (123456.789, "123457.0"),
        (1e-12 / 3, "3.33333e-13"),
        (0.1 + 0.2, "0.3"),
        (123456789, "123456789"),
        (None, ""),
        ("", ""),
        (True, "True"),
        ("a,b", '"a,b"'),
    ],
)
def test_a_cell_holds_six_significant_digits_and_none_is_empty(tmp_path, value, cell):
    assert cells(tmp_path, value) == f"{cell},end"


def test_a_table_has_its_columns_in_order_and_a_key_left_out_is_empty(tmp_path):
    path = tmp_path / "new folder" / "a.csv"
    outputs.write_csv(path, ["b", "a"], [{"a": 1, "b": 2}, {"a": 3}])
    assert path.read_bytes() == b"b,a\n2,1\n,3\n"


def test_a_table_without_rows_still_has_its_header(tmp_path):
    outputs.write_csv(tmp_path / "a.csv", ["b", "a"], [])
    assert (tmp_path / "a.csv").read_bytes() == b"b,a\n"


def test_an_unknown_column_raises_and_keeps_the_old_table(tmp_path):
    path = tmp_path / "a.csv"
    outputs.write_csv(path, ["a"], [{"a": 1}])
    with pytest.raises(ValueError, match="b"):
        outputs.write_csv(path, ["a"], [{"a": 2}, {"a": 3, "b": 4}])
    assert path.read_bytes() == b"a\n1\n"


def test_an_unknown_column_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="b"):
        outputs.write_csv(tmp_path / "a.csv", ["a"], [{"b": 4}])
    assert names(tmp_path) == []
