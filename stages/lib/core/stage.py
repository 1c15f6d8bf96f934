"""Runs a stage, `python -m stages.NAME [--seed N]`, completely or not at all."""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

from stages import STARTED
from stages.lib.core import errors, outputs, paths, pipeline, progress, records, timing
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError

Item = TypeVar("Item")


@dataclass
class Stage:
    """One run of a stage, which its script gets as its argument.

    name: of the stage.
    seed: None if the stage has none.
    params: the sections that dvc.yaml lists, as attributes.
    places: for each output, by its final path, where it is written until the stage is done.
    result: what it found, for its line on the terminal; empty to tell only that it is done.
    closing: lines after that one.
    """

    name: str
    seed: int | None
    params: SimpleNamespace
    places: dict[Path, Path]
    result: str = ""
    closing: Sequence[str] = ()

    def place(self, output: Path) -> Path:
        """Where to write what will become `output`, an output of the stage or a path below one."""
        for final, partial in self.places.items():
            if output.is_relative_to(final):
                return partial / output.relative_to(final)
        raise ValueError(f"{output} is no output of {self.name}")

    @cached_property
    def output(self) -> Path:
        """The final path of this stage's only output folder."""
        (final,) = self.places
        return final

    @cached_property
    def directory(self) -> Path:
        """Where this stage's only output folder is written until the stage is done."""
        directory = self.places[self.output]
        directory.mkdir(exist_ok=True)
        return directory

    @cached_property
    def without_training_images(self) -> bool:
        """Whether there are none, and "train" has the validation images."""
        from stages.lib.core import prepared  # imports numpy

        return prepared.read_meta(paths.PREPARED)["without_training_images"]

    def rows(self, stage: str, seed: int) -> list[records.Row]:
        """The rows that another stage left for a seed."""
        return records.read(paths.stage_directory(stage, seed) / paths.ROWS)

    def progress(
        self, items: Iterable[Item], unit: str, total: int | None = None
    ) -> Iterator[Item]:
        """The items, with a progress bar on a terminal, and a line a minute in a log."""
        return progress.shown(items, self.name, unit, total)

    def finish(self) -> None:
        """Called when the script is done, before its outputs are moved to their final paths."""

    def execute(self, main: Callable[["Stage"], None]) -> None:
        """Calls the script's `main`, and `finish`."""
        main(self)
        self.finish()

    def close(self) -> None:
        """Called when the outputs are at their final paths."""


def files_of(deps: Iterable[Path]) -> list[Path]:
    """The files at these paths, and in those that are folders."""
    found = [file for dep in deps for file in (dep.rglob("*") if dep.is_dir() else [dep])]
    return [file for file in found if file.is_file() and file.suffix != ".pyc"]


def _state(file: Path) -> object:
    """What identifies a file's state: the content of code; inode, size and time of other files."""
    if file.suffix in paths.CODE:
        return hashlib.sha256(file.read_bytes()).digest()
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


class Watch:
    """Notices whether code, inputs or params change while a stage runs.

    DVC takes their hashes after a stage has run. If they changed meanwhile, it would keep the old
    result under the new hashes.
    """

    def __init__(self, deps: list[Path], params: SimpleNamespace) -> None:
        self.deps, self.params = deps, params
        self.before = self._states()
        # A file written after this process began may be newer than what was imported.
        now = time.time()
        for file in self.before:
            if paths.ARTIFACTS in file.parents:  # programs that are handed over
                continue
            if file.suffix in paths.CODE and STARTED < file.stat().st_mtime <= now:
                self.before[file] = None

    def _states(self) -> dict[Path, object]:
        return {file: _state(file) for file in files_of(self.deps)}

    def check(self) -> None:
        """Raises UserError if something changed."""
        before, after = self.before, self._states()
        changed = [file for file in before | after if before.get(file) != after.get(file)]
        if parameters.read(*vars(self.params)) != self.params:
            changed.append(paths.PARAMS)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise UserError(
                f"{', '.join(map(str, changed[:3]))}{more}: changed while the stage ran, so its"
                " results belong neither to the old nor to the new; nothing of it was kept; run"
                " `dvc repro` again"
            )


def _seed(argv: Sequence[str] | None, per_seed: bool, description: str | None) -> int | None:
    """The seed from the command line. UserError if it is not one of params.yaml's seeds."""
    parser = argparse.ArgumentParser(description=description)
    if per_seed:
        parser.add_argument("--seed", type=int, required=True, help="one of params.yaml's seeds")
    seed = getattr(parser.parse_args(argv), "seed", None)
    known = parameters.read("seeds").seeds
    if seed is not None and seed not in known:
        raise UserError(f"--seed {seed}: not among params.yaml's seeds ({str(known)[1:-1]})")
    return seed


def run_stage(
    main: Callable[[Stage], None],
    kind: type[Stage] = Stage,
    *,
    name: str | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Validates params.yaml and calls `main` with a Stage. Its outputs are moved to their final
    paths when it is done; nothing is kept if it fails, is interrupted, or its dependencies changed.
    Then prints a line with the result, the time, the place in the pipeline, and what is left.

    main: of the stage's script.
    kind: the class of the Stage that `main` gets.
    name: of the stage; by default that of the script.
    argv: arguments; by default those of the command line.

    Errors are told by `errors.told`.
    """
    with errors.told("interrupted: nothing of this stage was written"):
        name = name or sys.modules["__main__"].__spec__.name.rpartition(".")[2]
        declared = pipeline.declared(name)
        seed = _seed(argv, declared.per_seed, sys.modules[main.__module__].__doc__)
        params = parameters.read(*declared.params)
        watch = Watch(declared.deps(seed), params)
        with outputs.whole(declared.outs(seed), watch.check) as places:
            stage = kind(name, seed, params, places)
            stage.execute(main)
        stage.close()
        line = timing.line((name, seed), stage.result, time.time() - STARTED)
        print(line, *stage.closing, sep="\n", flush=True)
