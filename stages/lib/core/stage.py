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

from stages.lib.core import errors, outputs, paths, pipeline
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError

# Before the modules of a stage are imported, those of this package aside.
STARTED = time.time()
CODE = {".py", ".j2", ".css", ".js"}
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
        """Where to write what will stand at `output`, or below it."""
        for final, partial in self.places.items():
            if output.is_relative_to(final):
                return partial / output.relative_to(final) if output != final else partial
        raise ValueError(f"{output} is no output of {self.name}")

    @cached_property
    def output(self) -> Path:
        """The directory that this stage leaves: its path in the end."""
        (final,) = self.places
        return final

    @cached_property
    def directory(self) -> Path:
        """The directory that this stage leaves: where it is written until then."""
        self.places[self.output].mkdir(exist_ok=True)
        return self.places[self.output]

    def progress(
        self, items: Iterable[Item], unit: str, total: int | None = None
    ) -> Iterator[Item]:
        """The items, with a progress bar on a terminal."""
        return tqdm(items, self.name, total, unit=unit, leave=False, disable=None)

    def finish(self) -> None:
        """Called when the script is done, before its outputs are put in place."""


def _state(path: Path) -> object:
    """What tells that a dependency has changed: the contents of code, size and time of data."""
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        return [(str(one), _state(one)) for one in files if one.suffix != ".pyc"]
    if not path.exists():
        return None
    if path.suffix in CODE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_newer(path: Path) -> bool:
    """Whether code was written after this process began to import it."""
    files = path.rglob("*") if path.is_dir() else [path]
    return any(one.suffix in CODE and one.stat().st_mtime > STARTED for one in files)


class _Watch:
    """Compares what a stage is made of at its end with its beginning.

    DVC takes the hashes of code, inputs and params after a stage has run: had they changed
    meanwhile, it would keep the result of the old ones as that of the new ones.
    """

    def __init__(self, declared: pipeline.Declared, params: SimpleNamespace) -> None:
        self.declared, self.params = declared, params
        self.before = {path: _state(path) for path in declared.deps}
        self.newer = {path for path in declared.deps if path.exists() and _is_newer(path)}

    def check(self) -> None:
        """UserError where something changed."""
        changed = [
            str(path)
            for path, state in self.before.items()
            if path in self.newer or _state(path) != state
        ]
        if parameters.read(*self.declared.params) != self.params:
            changed.append(str(paths.PARAMS))
        if changed:
            raise UserError(
                f"{', '.join(changed)}: changed while the stage ran, so its results belong neither"
                " to the old nor to the new; nothing of it was kept; run `dvc repro` again"
            )


def _name() -> str:
    return sys.modules["__main__"].__spec__.name.rpartition(".")[2]


def _seed(arguments: argparse.Namespace) -> int | None:
    seed = getattr(arguments, "seed", None)
    if seed is not None:
        seeds = parameters.read("seeds").seeds
        if seed not in seeds:
            known = ", ".join(map(str, seeds))
            raise UserError(f"--seed {seed}: not among params.yaml's seeds ({known})")
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

    kind: of Stage; name: of the stage, that of the script unless given. Errors are told by
    `errors.told`.
    """
    with errors.told("interrupted: nothing of this stage was written"):
        name = name or _name()
        parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
        if pipeline.declared(name).per_seed:
            parser.add_argument(
                "--seed", type=int, required=True, help="one of params.yaml's seeds"
            )
        seed = _seed(parser.parse_args(argv))
        declared = pipeline.declared(name, seed)
        params = parameters.read(*declared.params)
        watch = _Watch(declared, params)
        with outputs.whole(declared.outs, watch.check) as places:
            stage = kind(name, seed, params, places)
            main(stage)
            stage.finish()
