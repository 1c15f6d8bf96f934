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
from stages.lib.core import stage as stage_module
from stages.lib.core.errors import UserError
from stages.lib.core.stage import run_stage

ROOT = Path(__file__).parents[2]
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


def write_pipeline(folder, stages):
    (folder / "probe").mkdir()
    for path, part in (("dvc.yaml", stages), ("probe/dvc.yaml", {})):
        (folder / path).write_text(yaml.safe_dump({"stages": part}))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with params.yaml and a pipeline of two stages, and old results."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_pipeline(tmp_path, PIPELINE)
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


@pytest.mark.usefixtures("folder")
def test_a_stage_per_seed_gets_its_seed_and_has_the_paths_of_it():
    def main(stage):
        assert (stage.seed, stage.output) == (0, Path("results/seed-0"))
        (stage.directory / "new.txt").write_text("new")

    run(main, "seeded", ["--seed", "0"])
    assert Path("results/seed-0/new.txt").read_text() == "new"


@pytest.mark.usefixtures("folder")
def test_a_stage_writes_to_its_own_outputs_alone():
    def main(stage):
        with pytest.raises(ValueError, match="no output of toy"):
            stage.place(Path("elsewhere/a.txt"))
        write(stage)

    run(main)


def full_disk(stage):
    write(stage)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_for_a_library(stage):
    write(stage)
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def wrong_data(stage):
    write(stage)
    raise UserError("the first\nthe second")


def missing_file(stage):
    write(stage)
    Path("gone.txt").read_text()


def ctrl_c(stage):
    write(stage)
    raise KeyboardInterrupt


def half_done(stage):
    stage.place(Path("page.txt")).write_text("new")


def edit(path, content="new"):
    """A stage during which a file is written, or removed where content is None."""

    def main(stage):
        write(stage)
        if content is None:
            Path(path).unlink()
        else:
            Path(path).write_text(content)

    return main


def edit_code_unseen(stage):
    """Another content, of the same size, dated back: as an editor or Git may leave it."""
    edit("code/a.py")(stage)
    os.utime("code/a.py", (1e9, 1e9))


def swap_input(stage):
    """Another file of the same size and time, as `mv` leaves it."""
    edit("inputs/other")(stage)
    os.utime("inputs/other", (1e9, 1e9))
    Path("inputs/other").replace("inputs/seed-0/a.bin")


def edit_params(stage):
    write(stage)
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["finetune"]["epochs"] += 1
    Path("params.yaml").write_text(yaml.safe_dump(values))


CHANGED = "changed while the stage ran, so its results belong neither to the old nor to the new"


@pytest.mark.parametrize(
    ("main", "code", "lines"),
    [
        (wrong_data, 2, ["error: the first", "error: the second"]),
        (missing_file, 2, ["error: gone.txt: No such file or directory"]),
        (full_disk, 2, ["No space left on device; make room"]),
        (full_disk_for_a_library, 2, ["No space left on device; make room"]),
        (ctrl_c, 130, ["interrupted: nothing of this stage was written"]),
        (edit("code/a.py"), 2, [f"error: code/a.py: {CHANGED}"]),
        (edit_code_unseen, 2, [f"error: code/a.py: {CHANGED}"]),
        (edit("code/new.py"), 2, [f"error: code/new.py: {CHANGED}"]),
        (edit("code/a.py", None), 2, [f"error: code/a.py: {CHANGED}"]),
        (edit("inputs/seed-0/a.bin"), 2, [f"error: inputs/seed-0/a.bin: {CHANGED}"]),
        (edit("inputs/b"), 2, [f"error: inputs/b: {CHANGED}"]),
        (edit("inputs/seed-0/a.bin", None), 2, [f"error: inputs/seed-0/a.bin: {CHANGED}"]),
        (swap_input, 2, [f"error: inputs/seed-0/a.bin: {CHANGED}"]),
        (edit_params, 2, [f"error: params.yaml: {CHANGED}"]),
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


@pytest.mark.parametrize("error", [ZeroDivisionError, RuntimeError])
def test_a_bug_keeps_its_traceback_and_changes_nothing(folder, error):
    def main(stage):
        half_done(stage)
        if error is ZeroDivisionError:
            raise error

    before = files(folder)
    with pytest.raises(error):
        run(main)
    assert files(folder) == before


@pytest.mark.parametrize(
    "main", [edit("code/a.pyc"), edit("elsewhere.py"), edit("inputs.txt")], ids=["pyc", "py", "txt"]
)
@pytest.mark.usefixtures("folder")
def test_what_is_no_dependency_may_change(main):
    run(main)
    assert Path("page.txt").read_text() == "new"


@pytest.mark.usefixtures("folder")
def test_a_section_that_the_stage_does_not_read_may_change():
    def main(stage):
        write(stage)
        values = yaml.safe_load(Path("params.yaml").read_text())
        values["report"]["tolerance"] = 0.1
        Path("params.yaml").write_text(yaml.safe_dump(values))

    run(main)
    assert Path("page.txt").read_text() == "new"


@pytest.mark.usefixtures("folder")
def test_code_that_was_edited_while_the_stage_imported_is_noticed(monkeypatch, capsys):
    monkeypatch.setattr(stage_module, "STARTED", time.time() - 60)
    Path("code/a.py").write_text("new")
    os.utime("code/a.py", (time.time() - 30,) * 2)
    assert exit_code(write) == 2
    assert f"error: code/a.py: {CHANGED}" in capsys.readouterr().err
    # A wrong clock is no edit.
    os.utime("code/a.py", (time.time() + 3600,) * 2)
    run(write)


@pytest.mark.parametrize(
    ("name", "argv", "words"),
    [
        ("seeded", [], "--seed"),
        ("seeded", ["--seed"], "--seed"),
        ("seeded", ["--seed", "x"], "invalid int value"),
        ("seeded", ["--seed", "0.5"], "invalid int value"),
        ("toy", ["--seed", "0"], "unrecognized arguments"),
        ("gone", [], "error: dvc.yaml: has no stage gone"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_command_line_is_told(capsys, name, argv, words):
    assert exit_code(unreachable, name, argv) == 2
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_seed_that_is_not_among_the_seeds_is_told_which_are(capsys):
    seeds = parameters.read("seeds").seeds
    wrong = str(max(seeds) + 1)
    assert exit_code(unreachable, "seeded", ["--seed", wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --seed {wrong}: ")
    assert ", ".join(map(str, seeds)) in line


@pytest.mark.parametrize(("name", "argv"), [("toy", []), ("seeded", ["--seed", "0"])])
def test_broken_params_stop_a_stage_that_does_not_read_the_broken_key(folder, capsys, name, argv):
    with (folder / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("modle: {}\nseeed: 1\n")
    before = files(folder)
    assert exit_code(unreachable, name, argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [
        ["error", "params.yaml", "modle"],
        ["error", "params.yaml", "seeed"],
    ]
    assert files(folder) == before


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "probe/dvc.yaml"])
def test_without_its_files_a_stage_says_where_to_run(folder, capsys, name):
    (folder / name).unlink()
    assert exit_code(unreachable) == 2
    assert capsys.readouterr().err == f"error: {name}: not found; run from the repository's root\n"


@pytest.mark.parametrize("text", ["]", "stages: []", "a: 1", "\ud800"])
def test_a_torn_pipeline_is_a_line(folder, capsys, text):
    (folder / "dvc.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert exit_code(unreachable) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


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


class Checkout:
    """A copy of the library with one stage, `toy`, which waits where it is told to."""

    def __init__(self, path):
        self.path = path
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "stages/lib/core", path / "stages/lib/core", ignore=ignored)
        shutil.copy(ROOT / "stages/__init__.py", path / "stages")
        shutil.copy(ROOT / "params.yaml", path)
        (path / "stages/toy.py").write_text(SCRIPT)
        (path / "library.py").write_text("")
        stage = {"cmd": "", "deps": ["stages/lib/core"], "outs": ["results"]}
        write_pipeline(path, {"toy": stage})

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-B", "-m", "stages.toy", *arguments], cwd=self.path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("first", "interrupted"),
        ("importing", "interrupted"),
        ("main", "interrupted: nothing of this stage was written"),
    ],
)
def test_ctrl_c_is_one_line_at_any_time(checkout, place, text):
    before = files(checkout.path)
    with checkout.start(place) as process:
        assert process.stdout.readline() == f"{place}\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == f"{text}\n"
    assert process.returncode in (130, -signal.SIGINT)
    assert files(checkout.path) == before


def test_a_kill_leaves_nothing_that_the_next_run_does_not_remove(checkout):
    with checkout.start("main") as process:
        assert process.stdout.readline() == "main\n"
        process.kill()
    assert not (checkout.path / "results").exists()
    assert len(list(checkout.path.glob(".results.*.partial"))) == 1
    with checkout.start() as process:
        assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert (checkout.path / "results/half.txt").read_text() == "half"
    assert not list(checkout.path.glob(".*.partial"))


def test_code_that_is_edited_while_a_process_imports_leaves_nothing(checkout):
    with checkout.start("importing") as process:
        assert process.stdout.readline() == "importing\n"
        file = checkout.path / "stages/lib/core/records.py"
        file.write_text(file.read_text() + "\n")
        error = process.communicate("\n")[1]
    assert (process.returncode, len(error.splitlines())) == (2, 1)
    assert f"error: stages/lib/core/records.py: {CHANGED}" in error
    assert not list(checkout.path.glob("*results*"))


def test_a_python_without_a_library_is_told_to_activate_the_environment(checkout):
    (checkout.path / "library.py").write_text("import no_such_library.part")
    with checkout.start() as process:
        error = process.communicate()[1]
    assert error.startswith(f"error: {sys.executable} has no no_such_library; activate the ")
    assert len(error.splitlines()) == 1


def test_a_module_of_ours_that_is_missing_is_a_bug(checkout):
    (checkout.path / "library.py").write_text("import stages.gone")
    with checkout.start() as process:
        assert "Traceback" in process.communicate()[1]


def test_a_stage_says_what_it_does():
    command = [sys.executable, "-m", "stages.probe", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Describes the machine" in done.stdout


@pytest.mark.usefixtures("folder")
def test_a_stage_per_seed_says_that_it_wants_one(capsys):
    assert exit_code(unreachable, "seeded", ["--help"]) == 0
    assert "--seed SEED" in capsys.readouterr().out
