"""Arms that go wrong: one line, nothing half-written, no process left, finished arms are kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import TINY, Repository

STAGE = '''
"""A stage whose arms do what their names say."""
import os, time
from pathlib import Path
from stages.lib.arms.running import Arm, run_arms
from stages.lib.core.errors import UserError

def fine(context, label):
    with Path("done.txt").open("a") as file:
        file.write(f"{label}\\n")
    (context.directory / f"{label}.txt").write_text(label)

def refuse(context, label):
    while not list(Path().glob("at-work-*")):
        time.sleep(0.01)
    raise UserError("the first\\nthe second")

def wait(context, label):
    Path(f"at-work-{os.getpid()}").touch()
    while Path("wait").exists():
        time.sleep(0.01)
    fine(context, label)

def arms(params):
    labels = Path("arms.txt").read_text().split()
    return [Arm(label, globals()[label.partition("-")[0]], (label,)) for label in labels]

if __name__ == "__main__":
    run_arms(arms)
'''
ENTRY = {
    "cmd": "python -m stages.toy --seed ${item.seed}",
    "matrix": {"seed": "${seeds}"},
    "deps": ["stages/toy.py"],
    "params": ["compute"],
    "outs": ["artifacts/toy/seed-${item.seed}"],
}
OUTPUT = Path("artifacts/toy/seed-0")


@pytest.fixture
def toy(tmp_path):
    """A repository with the stage `toy`, two workers, and a function that starts it."""
    repository = Repository(tmp_path / "repository", TINY)
    repository.change("engine.workers", 2)
    (repository.path / "stages/toy.py").write_text(STAGE)
    pipeline = repository.path / "dvc.yaml"
    stages = yaml.safe_load(pipeline.read_text())
    stages["stages"]["toy"] = ENTRY
    pipeline.write_text(yaml.safe_dump(stages, sort_keys=False))
    (repository.path / "wait").touch()
    return repository


def start(toy, *labels):
    (toy.path / "arms.txt").write_text(" ".join(labels))
    return subprocess.Popen(
        [sys.executable, "-m", "stages.toy", "--seed", "0"], cwd=toy.path, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def at_work(toy, process, count=1):
    """The processes of the arms that wait, once there are so many."""
    while len(found := list(toy.path.glob("at-work-*"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return [int(path.name.rpartition("-")[2]) for path in found]


def session(number):
    """The processes of a session that are still at work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [path.parent.name] if int(its_session) == number and state != "Z" else []
    return found


def ended(process):
    """What the stage said on stderr. Nothing of it is left."""
    error = process.communicate(timeout=60)[1]
    begun = time.monotonic()
    while session(process.pid):
        assert time.monotonic() < begun + 20, "an orphan is left"
        time.sleep(0.01)
    return error


def left(toy):
    """What lies beside the stage's output, the kept arms left out."""
    folder = (toy.path / OUTPUT).parent
    return [path.name for path in folder.iterdir() if not path.name.endswith(".arms")]


def test_a_users_error_cancels_the_rest(toy):
    process = start(toy, "wait", "refuse", "fine-1")
    assert ended(process) == "error: the first\nerror: the second\n"
    assert (process.returncode, left(toy)) == (2, [])


def test_a_worker_that_is_killed_is_a_line_with_its_arm(toy):
    process = start(toy, "fine-1", "wait", "fine-2")
    os.kill(*at_work(toy, process), signal.SIGKILL)
    error = ended(process)
    assert error.startswith("error: toy: wait (seed 0): its worker was killed; if memory ran out,")
    assert "set engine.workers below 2" in error
    assert (process.returncode, error.count("\n"), left(toy)) == (2, 1, [])


def test_ctrl_c_is_one_line(toy):
    process = start(toy, "wait-1", "wait-2")
    at_work(toy, process, 2)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process) == "interrupted: nothing of this stage was written\n"
    assert (process.returncode, left(toy)) == (130, [])


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_stage_that_is_killed_goes_on_from_what_had_finished(toy, kind):
    done = toy.path / "done.txt"
    process = start(toy, "fine-1", "wait", "fine-2", "fine-3")
    at_work(toy, process)
    while not (toy.path / OUTPUT).with_name(".seed-0.arms").exists() or len(
        list((toy.path / OUTPUT).with_name(".seed-0.arms").glob("*/[0-9]"))
    ) < 3:  # fmt: skip
        time.sleep(0.01)
    process.send_signal(kind)
    assert ended(process) == ""
    assert not (toy.path / OUTPUT).exists()

    (toy.path / "wait").unlink()
    process = start(toy, "fine-1", "wait", "fine-2", "fine-3")
    assert (ended(process), process.returncode) == ("", 0)
    assert sorted(done.read_text().split()) == ["fine-1", "fine-2", "fine-3", "wait"]
    found = {path.name: path.read_text() for path in (toy.path / OUTPUT).iterdir()}
    assert found == {f"{name}.txt": name for name in done.read_text().split()}
    assert sorted(path.name for path in (toy.path / OUTPUT).parent.iterdir()) == [
        ".seed-0.key", "seed-0",
    ]  # fmt: skip
