"""The states of trainings on disk, from which an arm that was killed goes on bit for bit."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stages.lib.core import outputs, paths
from stages.lib.core.records import STATE
from stages.lib.evaluation import ranks
from stages.lib.models import checkpoints


def _taken_apart(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The value for JSON, without its tensors, copies of which are added to `tensors`."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": {key: _taken_apart(one, tensors) for key, one in value.items()}}
    if isinstance(value, list | tuple):
        return [_taken_apart(one, tensors) for one in value]
    return value


def _joined(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_joined(one, tensors) for one in value]
    if isinstance(value, dict) and "map" in value:
        return {key: _joined(one, tensors) for key, one in value["map"].items()}
    return tensors[value["tensor"]] if isinstance(value, dict) else value


class Snapshot:
    """A copy of a state: tensors, numbers, texts and None, in lists and in mappings by text."""

    def __init__(self, state: Any) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.rest = _taken_apart(state, self.tensors)

    def write(self, file: Path) -> None:
        """Writes the file, whole or not at all."""
        with outputs.whole_file(file) as partial:
            checkpoints.save_tensors(partial, self.tensors, {STATE: self.rest})
            ranks.wait()  # so that all have the same state, or none has


def read(file: Path) -> Any:
    """The state in a file of `Snapshot.write`; tuples have become lists."""
    tensors, rest = checkpoints.load_tensors(file, STATE)
    return _joined(rest, tensors)


class States:
    """The states of all trainings of an arm, which follow each other in the same order every time.

    folder: where they are kept; None: nowhere.
    seconds: how often the training at work saves its state.
    """

    def __init__(self, folder: Path | None = None, seconds: float = 0) -> None:
        self.folder, self.seconds = folder, seconds
        self.saved, self.begun = time.monotonic(), 0
        self.ended: dict[Path, Snapshot] = {}

    def begin(self) -> "Saved":
        """Begins the next training."""
        self.begun += 1
        return Saved(self, self.begun)

    def due(self) -> bool:
        """Whether it is time to save."""
        if self.folder is None:
            return False
        return ranks.first_says(time.monotonic() >= self.saved + self.seconds)

    def write(self) -> None:
        """Writes how the trainings ended that are not written yet: going on, none is repeated."""
        for file, state in self.ended.items():
            state.write(file)
        self.ended.clear()
        self.saved = time.monotonic()


class Saved:
    """What is saved of one training. number: 1 for the first of its arm."""

    def __init__(self, states: States, number: int) -> None:
        self.states = states
        self.file = (states.folder or Path()) / f"{number}{paths.SAFETENSORS}"

    def load(self) -> Any:
        """The state that was saved last, or None; also if that of another rank is not of the same
        step.
        """
        state = read(self.file) if self.states.folder and self.file.exists() else None
        steps = (state["epoch"], state["steps"]) if state else (0, 0)
        return state if all(map(ranks.agreed, steps)) else None

    def due(self) -> bool:
        """Whether it is time to save."""
        return self.states.due()

    def save(self, state: Any) -> None:
        """Saves a state in the midst of the training."""
        self.states.ended[self.file] = Snapshot(state)
        self.states.write()

    def end(self, state: Any) -> None:
        """Saves the state at the end of the training, as soon as it is time to save."""
        if self.states.folder:
            self.states.ended[self.file] = Snapshot(state)
        if self.states.due():
            self.states.write()
