"""What dvc.yaml declares for a stage: its params, dependencies and outputs.

A stage script repeats none of this: it gets these params, writes these outputs, and these
dependencies are watched for changes while it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages.lib.core import paths
from stages.lib.core.errors import UserError

# What dvc.yaml writes in place of the seed.
SEED_MARKS = ("${item.seed}", "${seeds[0]}")


@dataclass(frozen=True)
class Declared:
    """One entry of `stages` in a dvc.yaml."""

    entry: dict[str, Any]

    @property
    def per_seed(self) -> bool:
        """Whether the stage is run for one seed."""
        return "--seed" in self.entry["cmd"]

    @property
    def params(self) -> list[str]:
        """The sections of params.yaml that the stage reads."""
        return self.entry.get("params", [])

    def deps(self, seed: int | None) -> list[Path]:
        """The files and folders that the stage of this seed depends on."""
        return self._paths("deps", seed)

    def outs(self, seed: int | None) -> list[Path]:
        """The files and folders that the stage of this seed writes."""
        return self._paths("outs", seed) + self._paths("metrics", seed)

    def _paths(self, key: str, seed: int | None) -> list[Path]:
        entries = self.entry.get(key, [])
        # An entry is a path, or a mapping of a path to its options.
        names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
        for mark in SEED_MARKS:
            names = [name.replace(mark, str(seed)) for name in names]
        return [Path(name) for name in names]


def stages(files: Sequence[Path] = paths.PIPELINES) -> dict[str, dict[str, Any]]:
    """What the files declare, by stage. UserError if one is missing or is not a pipeline."""
    found = {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times faster
    for path in files:
        try:
            found |= yaml.load(path.read_text(encoding="utf-8"), loader)["stages"]
        except FileNotFoundError:
            raise UserError(f"{path}: not found; run from the repository's root") from None
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
            raise UserError(f"{path}: no pipeline; `git checkout {path}`") from None
    return found


def declared(stage: str) -> Declared:
    """What is declared for a stage. UserError if there is no such stage, or as in `stages`."""
    try:
        return Declared(stages()[stage])
    except KeyError:
        raise UserError(f"{paths.PIPELINES[0]}: has no stage {stage}") from None


def everything() -> dict[str, Declared]:
    """What is declared for each stage, in the order in which DVC runs them."""
    return {
        name: Declared(entry)
        for path in reversed(paths.PIPELINES)
        for name, entry in stages([path]).items()
    }
