"""The prepared data set: uint8 arrays on disk, memory-mapped by all later stages.

`data/prepared/` holds PART_images.npy and PART_labels.npy for train, validation and test, and
meta.json: the source, class names, mean and standard deviation of the training images, a checksum,
and the files that could not be read.
"""

import hashlib
import json
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.lib.core import outputs, paths
from stages.lib.core.errors import UserError

PARTS = ("train", "validation", "test")
BLOCK_BYTES = 16 * 2**20
# Of more unreadable files than this, only the number is kept.
MOST_NAMED = 1000
REMEDY = "delete the folder and run `dvc repro prepare_data`"


class Part(NamedTuple):
    """images: uint8 [n, channels, height, width]; labels: int64 [n]."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """mean, std: one number per channel, of the training images scaled to 0…1."""

    train: Part
    validation: Part
    test: Part
    classes: list[str]
    mean: list[float]
    std: list[float]
    checksum: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.train.images.shape[1:]


def _blocks(array: np.ndarray, rows: int | None = None) -> Iterator[np.ndarray]:
    """Yields contiguous blocks of at most `rows` rows of an array, or of what is sliced like
    one.
    """
    rows = rows or max(1, BLOCK_BYTES // int(np.prod(array.shape[1:]) * array.dtype.itemsize))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows])


def channel_statistics(
    images: np.ndarray, block: int | None = None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of images scaled to 0…1, read block by block.

    images: uint8 [n, channels, height, width]. A constant channel gets standard deviation 1, so
    that dividing by it is safe.
    """
    # Count each level: integers give the same sums for blocks of any size.
    counts = np.zeros((images.shape[1], 256), np.int64)
    for pixels in _blocks(images, block):
        for channel in range(images.shape[1]):
            counts[channel] += _histogram(pixels[:, channel])
    levels = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0))
    std[std < 1e-6] = 1
    return [round(float(x), 6) for x in mean], [round(float(x), 6) for x in std]


def _histogram(pixels: np.ndarray) -> np.ndarray:
    return sum(np.bincount(image.ravel(), minlength=256) for image in np.array_split(pixels, 16))


def checksum(parts: dict[str, Part]) -> str:
    """SHA-256 over the shapes and bytes of all parts, in order."""
    digest = hashlib.sha256()
    for name in PARTS:
        for array in parts[name]:
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            for block in _blocks(array):
                digest.update(block)
    return digest.hexdigest()


def _save(path: Path, array: np.ndarray) -> None:
    """Writes the bytes of np.save, block by block."""
    description = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, description)
        for block in _blocks(array):
            file.write(memoryview(block).cast("B"))


def write(
    directory: Path,
    parts: dict[str, Part],
    classes: list[str],
    source: str,
    unreadable: Sequence[dict[str, str]] = (),
) -> None:
    """Writes the arrays and meta.json.

    directory: must exist.
    parts: by name. Their images may be anything with a shape and dtype that gives arrays when it is
        sliced; they are read a block at a time.
    classes: names, by label.
    source: its name.
    unreadable: `file` and `reason` of each file that was left out.
    """
    for name in PARTS:
        for kind, array in parts[name]._asdict().items():
            _save(directory / paths.array_name(name, kind), array)
    mean, std = channel_statistics(parts["train"].images)
    meta = {
        "source": source,
        "classes": classes,
        "mean": mean,
        "std": std,
        "images": {name: len(parts[name].labels) for name in PARTS},
        "image_shape": list(parts["train"].images.shape[1:]),
        "checksum": checksum(parts),
        "unreadable_count": len(unreadable),
        "unreadable": list(unreadable[:MOST_NAMED]),
    }
    outputs.write_json(directory / paths.META, meta)


def _is_reason(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == {"file", "reason"}
        and all(isinstance(value, str) for value in entry.values())
    )


def read_meta(directory: Path) -> dict:
    """Reads meta.json and checks its keys. UserError if it is missing, damaged or another file."""
    path = directory / paths.META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro prepare_data`") from None
    except (ValueError, OSError):
        raise UserError(f"{path}: not JSON (cut short?); {REMEDY}") from None
    kinds = {
        "source": str, "classes": list, "mean": list, "std": list, "images": dict,
        "image_shape": list, "checksum": str, "unreadable_count": int, "unreadable": list,
    }  # fmt: skip
    fits = isinstance(meta, dict) and {key: type(value) for key, value in meta.items()} == kinds
    if fits:
        numbers = [*meta["mean"], *meta["std"], *meta["images"].values(), *meta["image_shape"]]
        fits = (
            set(meta["images"]) == set(PARTS)
            and all(type(number) in (int, float) for number in numbers)
            and len(meta["image_shape"]) == 3
            and len(meta["mean"]) == len(meta["std"]) == meta["image_shape"][0]
            and len(meta["unreadable"]) == min(meta["unreadable_count"], MOST_NAMED)
            and all(_is_reason(entry) for entry in meta["unreadable"])
        )
    if not fits:
        raise UserError(f"{path}: not the description of a prepared data set; {REMEDY}")
    return meta


def _array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {REMEDY}") from None
    except (ValueError, EOFError, OSError, tokenize.TokenError):
        raise UserError(f"{path}: not a whole .npy file (cut short?); {REMEDY}") from None
    if array.dtype != dtype or array.shape != shape:
        raise UserError(
            f"{path}: holds {array.dtype} {list(array.shape)} where meta.json announces"
            f" {np.dtype(dtype)} {list(shape)}; {REMEDY}"
        )
    return array


def read_labels(directory: Path, part: str, meta: dict) -> np.ndarray:
    """The labels of one part, int64 [n], memory-mapped. UserError if they are damaged.

    meta: of `read_meta`.
    """
    path = directory / paths.array_name(part, "labels")
    labels = _array(path, np.int64, (meta["images"][part],))
    if labels.min() < 0 or labels.max() >= len(meta["classes"]):
        raise UserError(f"{path}: a label outside the {len(meta['classes'])} classes; {REMEDY}")
    return labels


def load(directory: Path) -> Dataset:
    """Memory-maps the prepared data set. UserError with file and remedy if it is damaged."""
    meta = read_meta(directory)
    parts = []
    for name in PARTS:
        count = meta["images"][name]
        images = _array(
            directory / paths.array_name(name, "images"), np.uint8, (count, *meta["image_shape"])
        )
        parts.append(Part(images, read_labels(directory, name, meta)))
    return Dataset(*parts, meta["classes"], meta["mean"], meta["std"], meta["checksum"])
