"""Stages as a person meets them: one line per problem, exit code 2, no traceback, nothing written.

The stages started here as processes import no torch, so that this takes no more than seconds.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError
from stages.lib.core.stage import run_stage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the repository's params.yaml."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exit_code(main, **options):
    with pytest.raises(SystemExit) as stop:
        run_stage(main, **{"reads": ["model"], "argv": []} | options)
    return stop.value.code


def unreachable(*arguments):
    raise AssertionError(f"the stage ran: {arguments}")


@pytest.mark.usefixtures("folder")
def test_a_stage_gets_the_sections_that_it_reads_and_no_other():
    calls = []

    def main(params):
        calls.append(vars(params))

    run_stage(main, reads=["model", "seeds"], argv=[])
    assert [set(call) for call in calls] == [{"model", "seeds"}]


@pytest.mark.usefixtures("folder")
def test_a_stage_per_seed_gets_its_seed():
    seed = parameters.read("seeds").seeds[-1]
    calls = []

    def main(params, seed):
        calls.append((set(vars(params)), seed))

    run_stage(main, reads=["model"], per_seed=True, argv=["--seed", str(seed)])
    assert calls == [({"model"}, seed)]


@pytest.mark.usefixtures("folder")
def test_each_line_of_a_user_error_goes_to_stderr_and_the_code_is_2(capsys):
    def main(params):
        raise UserError("the first\nthe second")

    assert exit_code(main) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: the first\nerror: the second\n"
    assert printed.out == ""


@pytest.mark.usefixtures("folder")
def test_ctrl_c_is_one_line_and_the_code_130(capsys):
    def main(params):
        raise KeyboardInterrupt

    assert exit_code(main) == 130
    printed = capsys.readouterr()
    assert printed.err.startswith("interrupted")
    assert len(printed.err.splitlines()) == 1


@pytest.mark.usefixtures("folder")
def test_a_bug_keeps_its_traceback():
    def main(params):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage(main, reads=["model"], argv=[])


@pytest.mark.usefixtures("folder")
def test_a_seed_that_is_not_among_the_seeds_is_told_which_are(capsys):
    seeds = parameters.read("seeds").seeds
    wrong = str(max(seeds) + 1)
    assert exit_code(unreachable, per_seed=True, argv=["--seed", wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --seed {wrong}: ")
    assert ", ".join(map(str, seeds)) in line


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("argv", [[], ["--seed"], ["--seed", "x"], ["--seed", "0.5"]])
def test_a_stage_per_seed_wants_a_whole_number(argv, capsys):
    assert exit_code(unreachable, per_seed=True, argv=argv) == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_stage_without_seeds_takes_none():
    assert exit_code(unreachable, argv=["--seed", "0"]) == 2


@pytest.mark.parametrize("per_seed", [False, True])
def test_broken_params_stop_a_stage_that_does_not_read_the_broken_key(folder, capsys, per_seed):
    with (folder / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("modle: {}\nseeed: 1\n")
    argv = ["--seed", "0"] if per_seed else []
    assert exit_code(unreachable, per_seed=per_seed, argv=argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [
        ["error", "params.yaml", "modle"],
        ["error", "params.yaml", "seeed"],
    ]


def test_missing_params_say_where_to_run(folder, capsys):
    (folder / "params.yaml").unlink()
    assert exit_code(unreachable) == 2
    assert "run from the repository's root" in capsys.readouterr().err


@pytest.fixture
def checkout(tmp_path):
    """A copy of what stages need to run."""
    no_bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=no_bytecode)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def files(folder):
    return sorted(folder.rglob("*"))


def run(checkout, stage):
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=checkout,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("addition", "problems"),
    [
        ("modle: {}\n", 1),
        ("a: 1\nb: 2\n", 2),
        ("seeds: [1]\n", 1),
        ("]\n", 1),
    ],
)
def test_a_process_on_broken_params_ends_with_2_and_writes_nothing(checkout, addition, problems):
    with (checkout / "params.yaml").open("a", encoding="utf-8") as file:
        file.write(addition)
    before = files(checkout)
    done = run(checkout, "probe_hardware")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == problems
    assert all(line.startswith("error: params.yaml: ") for line in lines)
    assert files(checkout) == before


def test_a_process_on_impossible_values_ends_with_2_and_writes_nothing(checkout):
    path = checkout / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("test_images: ", "test_images: 9000"), encoding="utf-8")
    (checkout / "data").mkdir()  # as in a clone
    before = files(checkout)
    done = run(checkout, "prepare_data")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: data.validation_images + data.test_images: ")
    assert len(done.stderr.splitlines()) == 1
    assert files(checkout) == before


def test_a_process_on_the_default_params_ends_with_0(checkout):
    done = run(checkout, "probe_hardware")
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / "artifacts" / "hardware.json").is_file()
