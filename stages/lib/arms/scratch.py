"""Keeps the arms that have finished until their stage is whole, so that a stage that was killed
goes on from there. DVC and Git ignore this folder, which lies beside the stage's output.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import safe_open

from stages.lib.core import outputs, paths
from stages.lib.core import params as parameters
from stages.lib.core.records import STATE
from stages.lib.core.stage import files_of


def key(
    stage: str,
    seed: int,
    params: SimpleNamespace,
    deps: Iterable[Path],
    machine: Mapping[str, Any],
) -> str:
    """A hash of all that the results of a stage depend on.

    deps: code and inputs, as dvc.yaml lists them; their content counts. For prepared images it is
        the checksum in their meta.json.
    machine: of `hardware.describe`, which names torch's version too.
    """
    digest = hashlib.sha256()
    known = [stage, seed, parameters.plain(params), machine]
    digest.update(json.dumps(known, sort_keys=True).encode())
    for file in sorted(files_of(deps)):
        if file.suffix != paths.ARRAY:
            with file.open("rb") as content:
                summed = hashlib.file_digest(content, "sha256").hexdigest()
            digest.update(f"{file.as_posix()} {summed}\n".encode())
    return digest.hexdigest()[:16]


def reached(states: Path) -> tuple[int, int] | None:
    """The epoch in which the last training of an arm goes on, and the number of its epochs; None if
    there is none that has begun and not ended. states: the folder of `Scratch.states`.
    """
    files = sorted(states.rglob(f"*{paths.SAFETENSORS}"), key=lambda file: int(file.stem))
    if not files:
        return None
    try:
        with safe_open(files[-1], framework="numpy") as file:
            state = json.loads(file.metadata()[STATE])["map"]
    except FileNotFoundError:  # an orphan of the stage that was killed has ended the arm
        return None
    return (state["epoch"], state["epochs"]) if state["epoch"] <= state["epochs"] else None


class Scratch:
    """What is kept for one output of a stage.

    output: a stage's folder for a seed, such as `artifacts/finetune/seed-0`.
    key: of `key`. What has another key is of no use any more.
    check: raises UserError if something that the key depends on has changed since.
    """

    def __init__(self, output: Path, key: str, check: Callable[[], None]) -> None:
        self.check = check
        self.folder = output.with_name(f".{output.name}.arms")
        self.mark = output.with_name(f".{output.name}.key")
        self.output, self.key = output, key

    def place(self, number: int) -> Path:
        """The folder with the files of a finished arm. number: that of the arm in its stage."""
        return self.folder / self.key / str(number)

    def states(self, number: int) -> Path:
        """The folder for the states of an arm that is training."""
        return self.folder / self.key / f"{number}.states"

    def keep(self, number: int, files: Mapping[str, bytes]) -> None:
        """Keeps the files of a finished arm, by name, whole or not at all. Raises the errors of
        `check`.
        """
        with outputs.whole([self.place(number)], self.check) as places:
            folder = places[self.place(number)]
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
        shutil.rmtree(self.states(number), ignore_errors=True)

    def done(self) -> bool:
        """Whether the output is there, and nobody knows that it was made of something else."""
        try:
            return self.output.exists() and self.mark.read_text(encoding="utf-8") == self.key
        except FileNotFoundError:  # the output comes from DVC's cache
            return True

    def remove_outdated(self) -> None:
        """Removes what has another key."""
        for folder in self.folder.glob("*"):
            if folder.name != self.key:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Removes everything, now that the output is in its place, and notes the output's key."""
        shutil.rmtree(self.folder, ignore_errors=True)
        outputs.write_text(self.mark, self.key)
