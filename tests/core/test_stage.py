"""Stages as a person meets them: whole or not at all; one line per problem, and no traceback."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError
from stages.lib.core.stage import run_stage

ROOT = Path(__file__).parents[2]
SEEDS = parameters.read("seeds", path=ROOT / "params.yaml").seeds
PIPELINE = {
    "toy": {
        "cmd": "python -m stages.toy",
        "params": ["model", "finetune"],
        "deps": ["code", "inputs"],
        "outs": ["results", {"page.txt": {"persist": True}}],
    },
    "seeded": {
        "cmd": "python -m stages.seeded --seed ${item.seed}",
        "params": ["model"],
        "deps": ["inputs/seed-${item.seed}"],
        "outs": ["results/seed-${item.seed}"],
    },
}


def write_files(folder, **pipeline):
    """What a stage needs: params.yaml, and the two pipelines."""
    (folder / "probe").mkdir()
    for path, stages in (("dvc.yaml", pipeline), ("probe/dvc.yaml", {})):
        (folder / path).write_text(yaml.safe_dump({"stages": stages}))
    shutil.copy(ROOT / "params.yaml", folder)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with params.yaml and a pipeline of two stages, and old results."""
    write_files(tmp_path, **PIPELINE)
    for path in ("code/a.py", "inputs/seed-0/a.bin", "results/old.txt", "page.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("old")
        os.utime(tmp_path / path, (1e9, 1e9))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    """Every file below a folder, hidden ones too, with its content; bytecode left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def write(stage):
    stage.place(Path("results")).mkdir()
    stage.place(Path("results/new.txt")).write_text("new")
    stage.place(Path("page.txt")).write_text("new")


def run(main, name="toy", argv=()):
    run_stage(main, name=name, argv=list(argv))


def exit_code(main, name="toy", argv=()):
    with pytest.raises(SystemExit) as stop:
        run(main, name, argv)
    return stop.value.code


def unreachable(stage):
    raise AssertionError(f"{stage.name} ran")


def test_a_stage_gets_the_sections_of_the_pipeline_and_leaves_its_outputs(folder):
    def main(stage):
        assert (stage.name, stage.seed) == ("toy", None)
        assert set(vars(stage.params)) == {"model", "finetune"}
        write(stage)
        assert files(folder)["page.txt"] == b"old"

    run(main)
    assert (folder / "page.txt").read_text() == "new"
    assert [path.name for path in (folder / "results").iterdir()] == ["new.txt"]
    assert not list(folder.rglob("*.partial"))


def test_a_stage_per_seed_gets_its_seed_and_writes_to_its_own_outputs_alone():
    def main(stage):
        assert (stage.seed, stage.output) == (0, Path("results/seed-0"))
        with pytest.raises(ValueError, match="no output of seeded"):
            stage.place(Path("results/seed-1/a.txt"))
        (stage.directory / "new.txt").write_text("new")

    run(main, "seeded", ["--seed", "0"])
    assert Path("results/seed-0/new.txt").read_text() == "new"


def raising(error):
    def main(stage):
        write(stage)
        raise error

    return main


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
FULL_FOR_A_LIBRARY = RuntimeError("I/O error: No space left on device (os error 28)")


def missing_file(stage):
    write(stage)
    Path("gone.txt").read_text()


def half_done(stage):
    stage.place(Path("page.txt")).write_text("new")


def edit(path, content="new", back=False):
    """A stage during which a file is written, or removed where content is None.

    back: whether the file gets the size and time that it had, as an editor or Git may leave it.
    """

    def main(stage):
        write(stage)
        if content is None:
            Path(path).unlink()
        else:
            Path(path).write_text(content)
        if back:
            os.utime(path, (1e9, 1e9))

    return main


def swap_input(stage):
    """Another file of the same size and time, as `mv` leaves it."""
    edit("inputs/other", back=True)(stage)
    Path("inputs/other").replace("inputs/seed-0/a.bin")


def edit_params(section, key, value):
    def main(stage):
        values = yaml.safe_load(Path("params.yaml").read_text())
        values[section][key] = value
        edit("params.yaml", yaml.safe_dump(values))(stage)

    return main


CHANGED = "changed while the stage ran, so its results belong neither to the old nor to the new"


@pytest.mark.parametrize(
    ("main", "code", "lines"),
    [
        (raising(UserError("the first\nthe second")), 2, ["error: the first", "error: the second"]),
        (missing_file, 2, ["error: gone.txt: No such file or directory"]),
        (raising(FULL), 2, ["No space left on device; make room"]),
        (raising(FULL_FOR_A_LIBRARY), 2, ["No space left on device; make room"]),
        (raising(KeyboardInterrupt), 130, ["interrupted: nothing of this stage was written"]),
        (edit("code/a.py"), 2, [f"error: code/a.py: {CHANGED}"]),
        (edit("code/a.py", back=True), 2, [f"error: code/a.py: {CHANGED}"]),
        (edit("code/new.py"), 2, [f"error: code/new.py: {CHANGED}"]),
        (edit("code/a.py", None), 2, [f"error: code/a.py: {CHANGED}"]),
        (edit("inputs/seed-0/a.bin"), 2, [f"error: inputs/seed-0/a.bin: {CHANGED}"]),
        (edit("inputs/seed-0/a.bin", None), 2, [f"error: inputs/seed-0/a.bin: {CHANGED}"]),
        (swap_input, 2, [f"error: inputs/seed-0/a.bin: {CHANGED}"]),
        (edit_params("finetune", "epochs", 777), 2, [f"error: params.yaml: {CHANGED}"]),
        (edit("params.yaml", "]"), 2, ["error: params.yaml: line 1, column 1: this is not YAML"]),
    ],
)
def test_what_fails_is_told_in_lines_and_changes_nothing(folder, capsys, main, code, lines):
    before = files(folder / "results"), (folder / "page.txt").read_text()
    assert exit_code(main) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == len(lines)
    for line, words in zip(printed.err.splitlines(), lines, strict=True):
        assert words in line
    assert (files(folder / "results"), (folder / "page.txt").read_text()) == before
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    ("main", "error"), [(raising(ZeroDivisionError), ZeroDivisionError), (half_done, RuntimeError)]
)
def test_a_bug_keeps_its_traceback_and_changes_nothing(folder, main, error):
    before = files(folder)
    with pytest.raises(error):
        run(main)
    assert files(folder) == before


@pytest.mark.parametrize(
    "main",
    [edit("code/a.pyc"), edit("elsewhere.py"), edit("inputs.txt"),
     edit_params("report", "tolerance", 0.1)],
    ids=["pyc", "py", "txt", "params"],
)  # fmt: skip
def test_what_the_stage_does_not_read_may_change(main):
    run(main)
    assert Path("page.txt").read_text() == "new"


def test_a_wrong_clock_is_no_edit():
    os.utime("code/a.py", (time.time() + 3600,) * 2)
    run(write)


@pytest.mark.parametrize(
    ("name", "argv", "words"),
    [
        ("seeded", [], "--seed"),
        ("seeded", ["--seed", "0.5"], "invalid int value"),
        ("toy", ["--seed", "0"], "unrecognized arguments"),
        ("seeded", ["--seed", "1234"], f"params.yaml's seeds ({str(SEEDS)[1:-1]})\n"),
        ("gone", [], "error: dvc.yaml: has no stage gone"),
    ],
)
def test_a_wrong_command_line_is_told(capsys, name, argv, words):
    assert exit_code(unreachable, name, argv) == 2
    assert words in capsys.readouterr().err
    assert exit_code(unreachable, "seeded", ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "--seed SEED" in printed
    assert __doc__.partition(":")[0] in printed


def test_broken_params_stop_a_stage_that_does_not_read_the_broken_key(folder, capsys):
    with (folder / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("modle: {}\nseeed: 1\n")
    before = files(folder)
    for name, argv in (("toy", []), ("seeded", ["--seed", "0"])):
        assert exit_code(unreachable, name, argv) == 2
        starts = [line.split(": unknown key")[0] for line in capsys.readouterr().err.splitlines()]
        assert starts == ["error: params.yaml: modle", "error: params.yaml: seeed"]
    assert files(folder) == before


@pytest.mark.parametrize("text", [None, b"]", b"a: 1", b"\xff"])
@pytest.mark.parametrize("name", ["dvc.yaml", "probe/dvc.yaml"])
def test_without_its_pipeline_a_stage_says_where_to_run(folder, capsys, name, text):
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_bytes(text)
    assert exit_code(unreachable) == 2
    remedy = "not found; run from the repository's root" if text is None else "no pipeline; `git"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: {remedy}")


SCRIPT = """
\"\"\"A stage that waits.\"\"\"
import sys, time

def wait(place):
    if place in sys.argv:
        print(place, flush=True)
        sys.stdin.readline()

wait("first")
import library
from stages.lib.core.stage import run_stage
wait("importing")

def main(stage):
    (stage.directory / "half.txt").write_text("half")
    wait("main")

if __name__ == "__main__":
    run_stage(main, argv=[])
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the library with one stage, `toy`, which waits where it is told to."""
    path = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stages/lib/core", path / "stages/lib/core", ignore=ignored)
    shutil.copy(ROOT / "stages/__init__.py", path / "stages")
    (path / "stages/toy.py").write_text(SCRIPT)
    (path / "library.py").write_text("")
    write_files(path, toy={"cmd": "", "deps": ["stages/lib/core"], "outs": ["results"]})
    return path


def start(checkout, *arguments):
    return subprocess.Popen(
        [sys.executable, "-B", "-m", "stages.toy", *arguments], cwd=checkout, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("place", "text"),
    [("first", "interrupted"), ("main", "interrupted: nothing of this stage was written")],
)
def test_ctrl_c_is_one_line_at_any_time(checkout, place, text):
    before = files(checkout)
    with start(checkout, place) as process:
        assert process.stdout.readline() == f"{place}\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == f"{text}\n"
    assert process.returncode in (130, -signal.SIGINT)
    assert files(checkout) == before


def test_a_kill_leaves_nothing_that_the_next_run_does_not_remove(checkout):
    with start(checkout, "main") as process:
        assert process.stdout.readline() == "main\n"
        process.kill()
    assert not (checkout / "results").exists()
    assert len(list(checkout.glob(".results.*.partial"))) == 1
    with start(checkout) as process:
        assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert (checkout / "results/half.txt").read_text() == "half"
    assert not list(checkout.glob(".*.partial"))


def test_code_that_is_edited_while_a_process_imports_leaves_nothing(checkout):
    with start(checkout, "importing") as process:
        assert process.stdout.readline() == "importing\n"
        file = checkout / "stages/lib/core/records.py"
        file.write_text(file.read_text() + "\n")
        error = process.communicate("\n")[1]
    assert (process.returncode, len(error.splitlines())) == (2, 1)
    assert f"error: stages/lib/core/records.py: {CHANGED}" in error
    assert not list(checkout.glob("*results*"))


@pytest.mark.parametrize(
    ("module", "words", "one_line"),
    [("no_such_library.part", f"error: {sys.executable} has no no_such_library; activate ", True),
     ("stages.gone", "Traceback", False)],
)  # fmt: skip
def test_a_missing_library_is_a_line_and_a_missing_module_of_ours_a_bug(
    checkout, module, words, one_line
):
    (checkout / "library.py").write_text(f"import {module}")
    with start(checkout) as process:
        error = process.communicate()[1]
    assert error.startswith(words)
    assert (len(error.splitlines()) == 1) is one_line
