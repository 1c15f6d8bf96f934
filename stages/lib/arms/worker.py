"""What a worker does with an arm. Imports torch when it is asked to work, and not before."""

import os
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from stages.lib.core import hardware, progress, timing
from stages.lib.core.errors import UserError, reason

# What decides the bits of a result on a CPU.
SAME = ("machine", "isa", "torch")
# The files in which a worker notes its process, and how far its arm is, beside the arm's states.
PROCESS, PROGRESS = "process", "progress"


class Task(NamedTuple):
    """An arm of a stage and seed, as plain values, so that any process on any machine can run it.

    key: of the stage, by `scratch.key`.
    output: the stage's output folder.
    function: of the stage's script; it is called with a Context and the arguments.
    root: the repository.
    states: the folder in which training saves its state.
    seconds: how often it does.
    machine: the stage's, by `hardware.describe`.
    ahead: whether another stage or seed than the one at work asks for it. Whatever is wrong with
        the arm then waits for its own stage.
    """

    stage: str
    seed: int
    key: str
    params: SimpleNamespace
    output: str
    label: str
    function: str
    arguments: tuple[Any, ...]
    root: str
    states: str
    seconds: float
    machine: dict[str, Any]
    ahead: bool

    @property
    def name(self) -> str:
        """For people: its stage and seed, and its label."""
        return f"{timing.key((self.stage, self.seed))}: {self.label}"


class Refused(NamedTuple):
    """The text of a UserError, which is no bug and needs no traceback."""

    text: str


def check_machine(wanted: dict[str, Any], cuda: bool) -> None:
    """Raises UserError if this machine may compute other bits than the stage's. cuda: whether a GPU
    may be used.
    """
    here = hardware.describe()
    differs = [name for name in SAME if here[name] != wanted[name]]
    if cuda and set(here["gpus"]) != set(wanted["gpus"]):
        differs.append("gpus")
    if differs:
        raise UserError(
            f"{platform.node()}: another machine than the stage's ({', '.join(differs)}), which may"
            " give other results; use machines of one kind"
        )


# The context of the latest stage and seed, by the key of its tasks: this process loads data and
# baseline once for all its arms.
_contexts: dict[str, Any] = {}


def _context(task: Task) -> Any:
    from stages.lib.evaluation.context import Context

    # Ranks are given a context of which nothing is made yet.
    if task.key not in _contexts or task.params.compute.ranks > 1:
        check_machine(task.machine, task.params.compute.device != "cpu")
        _contexts.clear()
        _contexts[task.key] = Context(task.stage, task.seed, task.params, {})
    return _contexts[task.key]


def process_of(task: Task) -> int | None:
    """The process that began the task last; None if none has."""
    try:
        return int((Path(task.states) / PROCESS).read_text())
    except (FileNotFoundError, ValueError):
        return None


def progress_of(task: Task) -> str:
    """How far the task is, if a worker does it and it takes long; else empty."""
    try:
        return (Path(task.states) / PROGRESS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def forget() -> None:
    """Loads data and baseline anew for the next arm."""
    _contexts.clear()


def _call(function: Callable[..., None], arguments: tuple[Any, ...], context: Any) -> None:
    function(context, *arguments)


def _files(task: Task) -> dict[str, bytes]:
    from stages.lib.evaluation.states import States

    context = _context(task)
    function = getattr(import_module(f"stages.{task.stage}"), task.function)
    states = Path(task.states)
    states.mkdir(parents=True, exist_ok=True)
    (states / PROCESS).write_text(str(os.getpid()))
    # Beside the states, which are all that going on looks at.
    with tempfile.TemporaryDirectory(dir=states.parent) as folder:
        context.begin(Path(task.output), Path(folder) / "files", States(states, task.seconds))
        context.execute(partial(_call, function, task.arguments))
        found = sorted(context.directory.iterdir())
        return {file.name: file.read_bytes() for file in found}


def run_apart(task: Task) -> dict[str, bytes] | Refused:
    """As `run`, in another process than the stage's, which shows how far the arm is."""
    progress.visible, progress.notes = False, Path(task.states) / PROGRESS
    return run(task)


def run(task: Task) -> dict[str, bytes] | Refused:
    """Runs an arm. The content of each file that it leaves, by name."""
    if Path.cwd() != Path(task.root):  # of another machine
        os.chdir(task.root)
    try:
        return _files(task)
    except UserError as error:
        return Refused(str(error))
    except OSError as error:
        return Refused(f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        if not task.ahead:
            raise
        return Refused(reason(error))
