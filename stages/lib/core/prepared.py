"""The prepared data set: uint8 arrays on disk, memory-mapped by all later stages.

`data/prepared/` holds PART_images.npy and PART_labels.npy for train, validation and test, and
meta.json, which Meta describes.
"""

import hashlib
import math
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from stages.lib.core import outputs, paths
from stages.lib.core.errors import UserError, printable
from stages.lib.core.paths import PARTS

BLOCK_BYTES = 2 * 2**20
# Of more unreadable files than this, only the number is kept.
MOST_NAMED = 1000
# The classes that a line names.
SHOWN = 8
REMEDY = "delete the folder and run `dvc repro prepare_data`"


class Meta(BaseModel):
    """What meta.json holds.

    source: of the images, as params.yaml names it.
    classes: their names, in the order of the labels.
    mean, std: per channel, of the training images scaled to 0…1.
    images: how many each part has. counts: how many of each class, in the order of `classes`.
    image_shape: channels, height, width.
    checksum: SHA-256 of all arrays.
    without_training_images: whether there are none, so that "train" has the validation images, on
        which nothing is trained.
    unreadable: `file` and `reason` of the first MOST_NAMED of the `unreadable_count` files that
        were left out.
    """

    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)

    source: str
    classes: list[str]
    mean: list[float]
    std: list[float]
    images: dict[str, int]
    counts: dict[str, list[int]]
    image_shape: list[int]
    checksum: str
    unreadable_count: int
    unreadable: list[dict[str, str]]
    without_training_images: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "Meta":
        sizes = {part: sum(counts) for part, counts in self.counts.items()}
        if not (
            self.images == sizes
            and set(sizes) == set(PARTS)
            and all(len(counts) == len(self.classes) for counts in self.counts.values())
            and len(self.image_shape) == 3
            and len(self.mean) == len(self.std) == self.image_shape[0]
            and len(self.unreadable) == min(self.unreadable_count, MOST_NAMED)
        ):
            raise ValueError("the fields do not fit each other")
        return self


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


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields contiguous blocks of rows of an array, or of what is sliced like one."""
    rows = max(1, BLOCK_BYTES // (math.prod(array.shape[1:]) * array.dtype.itemsize))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows])


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of images scaled to 0…1, read block by block.

    images: uint8 [n, channels, height, width]. A constant channel gets standard deviation 1, so
    that dividing by it is safe.
    """
    # Count each level: integers give the same sums for blocks of any size.
    counts = np.zeros((images.shape[1], 256), np.int64)
    for pixels in blocks(images):
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0))
    std[std < 1e-6] = 1
    return [round(float(x), 6) for x in mean], [round(float(x), 6) for x in std]


def checksum(parts: dict[str, Part]) -> str:
    """SHA-256 over the shapes and bytes of all parts, in order."""
    digest = hashlib.sha256()
    for name in PARTS:
        for array in parts[name]:
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            for block in blocks(array):
                digest.update(block)
    return digest.hexdigest()


def _save(path: Path, array: np.ndarray) -> None:
    """Writes the bytes of np.save, block by block."""
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, array.dtype))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": array.shape})
        for block in blocks(array):
            file.write(block)


def write(
    directory: Path,
    parts: dict[str, Part],
    classes: list[str],
    source: str,
    unreadable: Sequence[dict[str, str]] = (),
    without_training_images: bool = False,
) -> dict[str, Any]:
    """Writes the arrays and meta.json. Returns what meta.json holds.

    directory: must exist.
    parts: by name. Their images may be anything with a shape and dtype that gives arrays when it is
        sliced; they are read a block at a time.
    classes: names, by label.
    source: its name.
    unreadable: `file` and `reason` of each file that was left out.
    without_training_images: whether "train" has the validation images.
    """
    for name in PARTS:
        for kind, array in parts[name]._asdict().items():
            _save(directory / paths.array_name(name, kind), array)
    mean, std = channel_statistics(parts["train"].images)
    labels = {name: parts[name].labels for name in PARTS}
    meta = Meta(
        source=source,
        classes=classes,
        mean=mean,
        std=std,
        images={name: len(labels[name]) for name in PARTS},
        counts={name: np.bincount(labels[name], minlength=len(classes)).tolist() for name in PARTS},
        image_shape=list(parts["train"].images.shape[1:]),
        checksum=checksum(parts),
        unreadable_count=len(unreadable),
        unreadable=list(unreadable[:MOST_NAMED]),
        without_training_images=without_training_images,
    ).model_dump()
    outputs.write_json(directory / paths.META, meta)
    return meta


def read_meta(directory: Path) -> dict[str, Any]:
    """The fields of Meta, from meta.json. UserError if it is missing, damaged or another file."""
    path = directory / paths.META
    try:
        return Meta.model_validate(outputs.read_json(path, REMEDY)).model_dump()
    except ValidationError:
        raise UserError(f"{path}: not the description of a prepared data set; {REMEDY}") from None


def commonest(meta: dict[str, Any], part: str) -> tuple[str, float]:
    """The commonest class of a part and its share: the accuracy of always predicting it."""
    counts = meta["counts"][part]
    return meta["classes"][int(np.argmax(counts))], max(counts) / sum(counts)


def _own_parts(meta: dict[str, Any]) -> tuple[str, ...]:
    """The parts that have images of their own."""
    return PARTS[1:] if meta["without_training_images"] else PARTS


def summary(meta: dict[str, Any]) -> str:
    """The number of classes and the sizes of the parts. meta: of `read_meta`."""
    sizes = ", ".join(f"{meta['images'][part]:,} {part}" for part in _own_parts(meta))
    share = 100 * commonest(meta, "test")[1]
    return f"{len(meta['classes'])} classes, images: {sizes} ({share:.1f} % of the commonest class)"


def class_counts(meta: dict[str, Any]) -> str:
    """A line about the classes: how many images each has, in all parts. meta: of `read_meta`."""
    totals = np.sum([meta["counts"][part] for part in _own_parts(meta)], axis=0)
    shown = zip(meta["classes"][:SHOWN], totals, strict=False)
    more = f" and {len(totals) - SHOWN} more" if len(totals) > SHOWN else ""
    return f"images: {', '.join(f'{printable(name)}: {count}' for name, count in shown)}{more}"


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
    """The labels of one part, int64 [n], memory-mapped. UserError if they are damaged."""
    path = directory / paths.array_name(part, "labels")
    labels = _array(path, np.int64, (meta["images"][part],))
    if labels.min() < 0 or labels.max() >= len(meta["classes"]):
        raise UserError(f"{path}: a label outside the {len(meta['classes'])} classes; {REMEDY}")
    return labels


def read_images(directory: Path, part: str, meta: dict) -> np.ndarray:
    """The images of one part, uint8 [n, channels, height, width], memory-mapped. UserError if they
    are damaged.
    """
    shape = (meta["images"][part], *meta["image_shape"])
    return _array(directory / paths.array_name(part, "images"), np.uint8, shape)


def load(directory: Path) -> Dataset:
    """Memory-maps the prepared data set. UserError with file and remedy if it is damaged."""
    meta = read_meta(directory)
    parts = []
    for name in PARTS:
        images = read_images(directory, name, meta)
        parts.append(Part(images, read_labels(directory, name, meta)))
    return Dataset(*parts, meta["classes"], meta["mean"], meta["std"], meta["checksum"])
