"""How every stage is run: `python -m stages.NAME [--seed N]`, whole or not at all."""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

from tqdm import tqdm

from stages import STARTED
from stages.lib.core import errors, outputs, paths, pipeline
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError

Item = TypeVar("Item")


class Stage:
    """One run of a stage: what its script is handed.

    name; seed: None for a stage without; params: the sections that dvc.yaml lists, as attributes;
    places: where each output is to be written until the stage is done, by its path.
    """

    def __init__(
        self, name: str, seed: int | None, params: SimpleNamespace, places: dict[Path, Path]
    ) -> None:
        self.name, self.seed, self.params, self.places = name, seed, params, places

    def place(self, output: Path) -> Path:
        """Where to write what will stand at `output`, which is one of the stage's or below one."""
        for final, partial in self.places.items():
            if output.is_relative_to(final):
                return partial / output.relative_to(final)
        raise ValueError(f"{output} is no output of {self.name}")

    @cached_property
    def output(self) -> Path:
        """The one folder that this stage leaves: its path in the end."""
        (final,) = self.places
        return final

    @cached_property
    def directory(self) -> Path:
        """The one folder that this stage leaves: where it is written until then."""
        directory = self.places[self.output]
        directory.mkdir(exist_ok=True)
        return directory

    def progress(
        self, items: Iterable[Item], unit: str, total: int | None = None
    ) -> Iterator[Item]:
        """The items, with a progress bar on a terminal."""
        return tqdm(items, self.name, total, unit=unit, leave=False, disable=None)

    def finish(self) -> None:
        """Called when the script is done, before its outputs are put in place."""


def _files(deps: Iterable[Path]) -> list[Path]:
    """What lies at these paths, and below those that are folders."""
    found = [file for dep in deps for file in (dep.rglob("*") if dep.is_dir() else [dep])]
    return [file for file in found if file.is_file() and file.suffix != ".pyc"]


def _state(file: Path) -> object:
    """What changes with a file: the content of code; number, size and time of what may be large."""
    if paths.is_code(file):
        return hashlib.sha256(file.read_bytes()).digest()
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Watch:
    """Compares what a stage is made of at its end with its beginning.

    DVC takes the hashes of code, inputs and params after a stage has run: had they changed
    meanwhile, it would keep the result of the old ones as that of the new ones.
    """

    def __init__(self, deps: list[Path], params: SimpleNamespace) -> None:
        self.deps, self.params = deps, params
        self.before = self._states()
        # What was written after this process began may be newer than what it imported.
        now = time.time()
        for file in filter(paths.is_code, self.before):
            if STARTED < file.stat().st_mtime <= now:
                self.before[file] = None

    def _states(self) -> dict[Path, object]:
        return {file: _state(file) for file in _files(self.deps)}

    def check(self) -> None:
        """UserError where something changed."""
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
    """The seed of the command line. UserError where it is not one of params.yaml's."""
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
    """Validates params.yaml whole and calls `main` with a Stage. What `main` wrote is put in place
    when it is done; nothing is where it fails, is interrupted, or what it is made of changed.

    kind: of Stage; name: of the stage, that of the script unless given; argv: of the command line
    unless given. Errors are told by `errors.told`.
    """
    with errors.told("interrupted: nothing of this stage was written"):
        name = name or sys.modules["__main__"].__spec__.name.rpartition(".")[2]
        declared = pipeline.declared(name)
        seed = _seed(argv, declared.per_seed, sys.modules[main.__module__].__doc__)
        params = parameters.read(*declared.params)
        watch = _Watch(declared.deps(seed), params)
        with outputs.whole(declared.outs(seed), watch.check) as places:
            stage = kind(name, seed, params, places)
            main(stage)
            stage.finish()
