"""Reads stored predictions, without torch: which network is right on which image."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.records import REMEDY

FILES = {"validation": paths.VALIDATION_PREDICTIONS, "test": paths.PREDICTIONS}


class Key(NamedTuple):
    """The key of a network within a seed. The fields are those of records.Row.

    engine: in which it was executed; empty for the first engine that executes its kind of file.
    """

    method: str
    target_sparsity: float = 0.0
    weight_bits: int = 32
    times_smaller: float = 1.0
    engine: str = ""

    @property
    def name(self) -> str:
        """The name under which its predictions are stored."""
        name = paths.network_name(*self[:-1])
        return paths.executed_name(name, self.engine) if self.engine else name


# Whether the network of each seed is right on each image: bool [seeds, images].
Correct = dict[Key, NDArray[np.bool_]]


def classes(path: Path, labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The class that each network of a stage's file gives to each image, by `Key.name`.

    labels: int64 [images]. UserError with file and remedy if the file is missing or damaged, or
    does not have a class for each of these images.
    """
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`") from None
    except (SafetensorError, OSError, TypeError):  # TypeError: of a type that numpy has not
        raise UserError(f"{path}: not a whole safetensors file (cut short?); {REMEDY}") from None
    for name, found in stored.items():
        if found.dtype != np.int64 or found.shape != labels.shape:
            raise UserError(
                f"{path}: {name} is {found.dtype} {list(found.shape)} where the"
                f" {len(labels)} images want int64 [{len(labels)}]; {REMEDY}"
            )
    return stored


def read(path: Path, labels: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """On which images each network of a stage's file is right, by `Key.name`. As `classes`."""
    return {name: found == labels for name, found in classes(path, labels).items()}


def correct(
    folders: Sequence[Sequence[Path]], part: str, keys: Iterable[Key], labels: NDArray[np.int64]
) -> Correct:
    """On which images each network is right, bool [seeds, images], for those `keys` that every seed
    has.

    folders: for each seed, the folders of its stages.
    part: "validation" or "test".
    labels: of that part.

    UserError as in `read`.
    """
    seeds = []
    for of_seed in folders:
        networks: dict[str, NDArray[np.bool_]] = {}
        for folder in of_seed:
            networks |= read(folder / FILES[part], labels)
        seeds.append(networks)
    return {
        key: np.stack([networks[key.name] for networks in seeds])
        for key in dict.fromkeys(keys)
        if seeds and all(key.name in networks for networks in seeds)
    }
