"""What dvc.yaml says of a stage: the params that it reads, what it depends on, what it leaves.

A stage script repeats none of this: it is handed these params, writes these outputs, and is watched
for changes of these dependencies while it runs.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from stages.lib.core import paths
from stages.lib.core.errors import UserError


class Declared(NamedTuple):
    """params: names of sections; deps and outs: paths, as dvc.yaml has them for this seed;
    per_seed: whether the stage has a seed of its own.
    """

    params: list[str]
    deps: list[Path]
    outs: list[Path]
    per_seed: bool


def _paths(entries: Iterable[Any], seed: int | None) -> list[Path]:
    names = (next(iter(one)) if isinstance(one, dict) else one for one in entries)
    marks = ("${item.seed}", "${seeds[0]}")
    found = []
    for name in names:
        for mark in marks:
            name = name.replace(mark, str(seed))
        found.append(Path(name))
    return found


def stages(files: Sequence[Path] = paths.PIPELINES) -> dict[str, dict[str, Any]]:
    """What the files declare, by stage. UserError where one is missing or is no pipeline."""
    found = {}
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
            found |= yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        except FileNotFoundError:
            raise UserError(f"{path}: not found; run from the repository's root") from None
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            raise UserError(f"{path}: no pipeline; `git checkout {path}`") from None
    return found


def declared(stage: str, seed: int | None = None) -> Declared:
    """What is declared of a stage. seed: that of the run, None for a stage without.

    Raises UserError as `stages` does, or where there is no such stage.
    """
    try:
        found = stages()[stage]
    except KeyError:
        raise UserError(f"{paths.PIPELINES[0]}: has no stage {stage}") from None
    outs = [*found.get("outs", []), *found.get("metrics", [])]
    return Declared(
        list(found.get("params", [])),
        _paths(found["deps"], seed),
        _paths(outs, seed),
        "--seed" in found["cmd"],
    )
