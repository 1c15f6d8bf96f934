"""A stage whose arms do what their names say, for tests of what goes wrong."""

import subprocess
import sys
import time
from pathlib import Path

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

def only0(context, label):
    if context.seed:
        raise UserError(f"seed {context.seed}")
    fine(context, label)

def wait(context, label):
    (context.directory / f"{label}.safetensors").touch()
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


def repository(path: Path) -> Repository:
    """A repository with the stage `toy` and two workers; arms that wait go on when the file `wait`
    is gone.
    """
    made = Repository(path, TINY)
    made.change("engine.workers", 2)
    (made.path / "stages/toy.py").write_text(STAGE)
    pipeline = made.path / "dvc.yaml"
    stages = yaml.safe_load(pipeline.read_text())
    stages["stages"]["toy"] = ENTRY
    pipeline.write_text(yaml.safe_dump(stages, sort_keys=False))
    (made.path / "wait").touch()
    return made


def start(toy, *labels, seed=0, stderr=subprocess.PIPE):
    (toy.path / "arms.txt").write_text(" ".join(labels))
    return subprocess.Popen(
        [sys.executable, "-m", "stages.toy", "--seed", str(seed)], cwd=toy.path, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=stderr,
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
