"""Results are there whole or not at all, whatever stops the run that makes them."""

import errno
import json
import math
import os
import subprocess
import sys

import pytest

from stages.lib.core import outputs
from stages.lib.core.errors import UserError


@pytest.fixture
def final(tmp_path):
    return tmp_path / "models" / "seed-0"


@pytest.fixture(scope="module")
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def make(final):
    """Writes a folder, or a file where its name has an ending."""
    with outputs.whole([final]) as places:
        fill(places[final])


def fill(place, text="new"):
    if ".txt" in place.name:
        place.write_text(text)
    else:
        place.mkdir()
        (place / f"{text}.txt").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def leftover(final, pid, infix=""):
    path = final.parent / f".{final.name}{infix}.{pid}{outputs.PARTIAL}"
    path.mkdir(parents=True)
    (path / "half.txt").write_text("half")
    return path


@pytest.mark.parametrize("there", [False, True])
def test_what_is_written_stands_beside_its_final_place_until_the_block_ends(final, there):
    if there:
        final.mkdir(parents=True)
        (final / "old.txt").write_text("old")
    with outputs.whole([final]) as places:
        assert not places[final].exists()
        assert places[final].parent == final.parent
        fill(places[final])
        assert (names(final) == ["old.txt"]) if there else not final.exists()
    assert names(final) == ["new.txt"]
    assert names(final.parent) == [final.name]


class RefusedError(Exception):
    """What a check raises."""


def refuse():
    raise RefusedError


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit, RefusedError, None])
@pytest.mark.parametrize("there", [False, True])
def test_all_outputs_are_put_in_place_or_none(tmp_path, stop, there):
    finals = [tmp_path / name for name in ("page.txt", "figures", "table.txt")]
    for final in finals if there else []:
        fill(final, "old")
    before = names(tmp_path)

    def write():
        with outputs.whole(finals, refuse if stop is RefusedError else lambda: None) as places:
            fill(places[finals[0]])
            fill(places[finals[1]])
            if stop not in (None, RefusedError):
                raise stop
            if stop:
                fill(places[finals[2]])

    # None: the last output is not written.
    with pytest.raises(stop or RuntimeError):
        write()
    assert names(tmp_path) == before
    assert not there or names(finals[1]) == ["old.txt"]
    assert not there or finals[0].read_text() == "old"


@pytest.mark.parametrize("infix", ["", ".old"])
@pytest.mark.parametrize("name", ["seed-0", "page.txt"])
def test_leftovers_of_dead_processes_are_removed(final, dead_pid, infix, name):
    final = final.with_name(name)
    leftover(final, dead_pid, infix)
    (final.parent / f".{name}.x.{dead_pid}{outputs.PARTIAL}").write_text("half")
    # An earlier process may have had this pid.
    leftover(final, os.getpid(), infix)
    make(final)
    assert names(final.parent) == [final.name]


def test_what_other_processes_and_other_results_write_is_left_alone(final, dead_pid, monkeypatch):
    def forbidden(pid, signal):
        raise PermissionError

    living = leftover(final, os.getppid())
    other = leftover(final.with_name("seed-1"), dead_pid)
    make(final)
    assert names(living) == ["half.txt"]
    assert other.exists()
    # Another user's.
    monkeypatch.setattr(os, "kill", forbidden)
    make(final)
    assert names(living) == ["half.txt"]


def test_seeds_that_are_no_longer_asked_for_leave_nothing(tmp_path, dead_pid):
    for seed in (0, 1, 12):
        (tmp_path / "finetune" / f"seed-{seed}").mkdir(parents=True)
        (tmp_path / "finetune" / f".seed-{seed}.arms").mkdir()
        (tmp_path / "finetune" / f".seed-{seed}.key").touch()
    (tmp_path / "package").mkdir()
    leftover(tmp_path / "finetune/seed-2", dead_pid)
    living = leftover(tmp_path / "finetune/seed-3", os.getppid())
    outputs.remove_other_seeds(tmp_path, [0, 1])
    assert names(tmp_path) == ["finetune", "package"]
    kept = [f".seed-{seed}.{kind}" for seed in (0, 1) for kind in ("arms", "key")]
    assert names(tmp_path / "finetune") == [*kept, living.name, "seed-0", "seed-1"]


def test_a_file_of_the_same_content_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    outputs.write_text(path, "a")
    before = path.stat()
    outputs.write_text(path, "a")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names(tmp_path) == ["a.txt"]


def test_text_and_json_replace_the_old_file_whole_with_keys_in_order(tmp_path):
    path = tmp_path / "new folder" / "a.json"
    outputs.write_text(path, "a longer text" * 9)
    value = {"b": 1, "a": [0.1, None, "é"]}
    outputs.write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert list(json.loads(text).items()) == list(value.items())
    assert "é" in text
    assert text.endswith("}\n")
    assert names(path.parent) == ["a.json"]


@pytest.mark.parametrize(
    "fail",
    [lambda path, value=value: outputs.write_json(path, [value]) for value in (math.nan, math.inf)]
    + [lambda path: outputs.write_csv(path, ["a"], [{"a": 2}, {"a": 3, "b": 4}])],
)
def test_no_number_in_json_or_an_unknown_column_raises_and_keeps_the_old_file(tmp_path, fail):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"not JSON compliant|'b'"):
        fail(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (2 / 3, "0.666667"),
        (123456.789, "123457.0"),
        (1e-12 / 3, "3.33333e-13"),
        (123456789, "123456789"),
        (None, ""),
        ("a,b", '"a,b"'),
    ],
)
def test_a_cell_holds_six_significant_digits_and_none_is_empty(tmp_path, value, cell):
    path = tmp_path / "a.csv"
    outputs.write_csv(path, ["value", "end"], [{"value": value, "end": "end"}])
    assert path.read_bytes().decode() == f"value,end\n{cell},end\n"


@pytest.mark.parametrize(("rows", "lines"), [([{"a": 1, "b": 2}, {"a": 3}], "2,1\n,3\n"), ([], "")])
def test_a_table_has_its_columns_in_order_and_a_key_left_out_is_empty(tmp_path, rows, lines):
    path = tmp_path / "new folder" / "a.csv"
    outputs.write_csv(path, ["b", "a"], rows)
    assert path.read_bytes().decode() == f"b,a\n{lines}"


def fill_the_disk(final):
    with outputs.whole([final]) as places:
        fill(places[final], "first")
        os.utime(places[final] / "first.txt", (1e9, 1e9))
        (places[final] / "deeper").mkdir()
        (places[final] / "deeper/last.txt").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_the_file_that_was_being_written_is_named(final):
    with pytest.raises(UserError) as error:
        fill_the_disk(final)
    assert str(error.value).startswith(f"{final}/deeper/last.txt: No space left on device; make")
    assert not final.exists()
