"""The stored test predictions, read without torch: whose network is right on which image."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.records import REMEDY

# A network of every seed: method, target sparsity, bits per weight.
Key = tuple[str, float, int]
# Whether it is right: bool [seeds, images].
Correct = dict[Key, NDArray[np.bool_]]


def read(path: Path, labels: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Of each network in a stage's file, by `paths.prediction_name`: on which images it is right.

    labels: int64 [images]. UserError, naming file and remedy, where the file is missing, torn, or
    not a class for each of these images.
    """
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`") from None
    except (SafetensorError, OSError, TypeError):  # TypeError: of a type that numpy has not
        raise UserError(f"{path}: not a whole safetensors file (cut short?); {REMEDY}") from None
    for name, classes in stored.items():
        if classes.dtype != np.int64 or classes.shape != labels.shape:
            raise UserError(
                f"{path}: {name} is {classes.dtype} {list(classes.shape)} where the"
                f" {len(labels)} test images want int64 [{len(labels)}]; {REMEDY}"
            )
    return {name: classes == labels for name, classes in stored.items()}


def correct(
    files: Sequence[Sequence[Path]], keys: Iterable[Key], labels: NDArray[np.int64]
) -> Correct:
    """bool [seeds, images] for those of `keys` that every seed has.

    files: for each seed those of its stages. UserError as for `read`.
    """
    seeds = []
    for of_seed in files:
        found: dict[str, NDArray[np.bool_]] = {}
        for path in of_seed:
            found |= read(path, labels)
        seeds.append(found)
    names = {key: paths.prediction_name(*key) for key in keys}
    return {
        key: np.stack([seed[name] for seed in seeds])
        for key, name in names.items()
        if seeds and all(name in seed for seed in seeds)
    }
