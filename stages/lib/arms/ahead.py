"""Which runs of stages may have their arms done ahead, while another one has the workers."""

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from stages.lib.core import interpreter, pipeline, timing
from stages.lib.core import params as parameters


def _touch(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def ready(name: str, seed: int) -> Iterator[timing.Run]:
    """The other runs whose arms can be done while this one works: those of the same stage for other
    seeds and, if DVC runs the whole pipeline, later ones that have no output yet and read nothing
    that is still to be made. A later stage with outputs might be one that DVC will leave as it is.
    The last come first: their arms take longest, and no worker should wait for the end of one.
    """
    declared = pipeline.everything()
    runs = timing.plan(declared, parameters.read("seeds").seeds)
    later = runs[runs.index((name, seed)) :] if (name, seed) in runs else []
    made = [out for run in later for out in declared[run[0]].outs(run[1])]
    if not interpreter.runs_everything():
        later = []
    for run in reversed(runs):
        deps, outs = declared[run[0]].deps(run[1]), declared[run[0]].outs(run[1])
        if run[0] == name:
            fits = run[1] != seed
        else:
            waits = any(_touch(dep, out) for dep in deps for out in made)
            fits = run in later and not waits and not any(out.exists() for out in outs)
        if fits and all(dep.exists() for dep in deps):
            yield run


def arms_of(name: str, params: Any) -> list[Any]:
    """The arms of a stage; none if it has none, or if its script is broken: that is told when the
    stage runs.
    """
    with suppress(Exception):
        return list(import_module(f"stages.{name}").arms(params))
    return []
