"""The metadata of a packed file: the architecture, how each tensor is stored, and the tables by
which the payload is decoded, to bytes and back.
"""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from stages.lib.compression import entropy_coding, skeletons
from stages.lib.compression import packed_layout as layouts
from stages.lib.compression.container import UnsoundError
from stages.lib.compression.entropy_coding import Table
from stages.lib.compression.packed_layout import Layout
from stages.lib.compression.skeletons import Skeleton
from stages.lib.core import custom_model
from stages.lib.models import registry

# Whole numbers in planes are smaller.
PLANES_END = 2**24
FOREIGN = "its description of a network is not one of ours"


class Metadata(NamedTuple):
    """layout; raw: tensors stored as they are, by index; tables: one for each of the layout's coded
    arrays, of which those of empty ones are not stored.
    """

    layout: Layout
    raw: dict[int, torch.Tensor]
    tables: list[Table]


def _planes(numbers: np.ndarray) -> bytes:
    """Whole numbers, all lowest bytes first, then all middle, then all highest: the latter, mostly
    zeros, deflate to next to nothing.
    """
    return numbers.astype("<u4").view(np.uint8).reshape(-1, 4).T[:3].tobytes()


def _raw_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().reshape(-1)
    array = (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy()
    return array.astype(layouts.RAW_TYPES[tensor.dtype]).tobytes()


def _taken(layout: Layout, dense: Skeleton) -> np.ndarray:
    """What the removal of filters took off the dense network's sizes and off its shapes."""
    taken = skeletons.differences(dense.sizes, layout.architecture.get(registry.RESIZED, {}))
    for old, new in zip(dense.shapes.values(), layout.shapes, strict=True):
        taken += [before - after for before, after in zip(old, new, strict=True)]
    numbers = np.array(taken, dtype=np.int64)
    if ((numbers < 0) | (numbers >= PLANES_END)).any():
        raise ValueError("a tensor is larger than its architecture has it")
    return numbers


def to_bytes(metadata: Metadata, dense: Skeleton) -> bytes:
    """dense: the skeleton of the layout's architecture. ValueError where the two do not fit."""
    layout, raw, _ = metadata
    architecture = registry.dense_architecture(layout.architecture)
    text = json.dumps(architecture, separators=(",", ":"), ensure_ascii=False).encode()
    taken = _taken(layout, dense)
    ties = [layout.ties[index] for index in layout.of_kind(layouts.TIED)]
    arrays = zip(layouts.coded(layout), metadata.tables, strict=True)
    tables = [table for array, table in arrays if array.length]
    roots = [table.roots for table in tables]
    return b"".join(
        (
            len(text).to_bytes(4, "little"),
            text,
            b"\1" + _planes(taken) if taken.any() else b"\0",
            bytes(layout.kinds),
            np.array(ties, dtype="<u4").tobytes(),
            *(_raw_bytes(raw[index]) for index in layout.of_kind(layouts.RAW)),
            np.array([table.shift for table in tables], dtype="<u1").tobytes(),
            np.array([table.zeros for table in tables], dtype="<u1").tobytes(),
            np.array([table.least for table in tables], dtype="<i4").tobytes(),
            np.array([len(one) - 1 for one in roots], dtype="<u2").tobytes(),
            _planes(np.concatenate(roots)) if roots else b"",
        )
    )


class _Reader:
    """Bytes, taken piece by piece: nothing longer than them is ever made."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise UnsoundError("its metadata are shorter than they should be")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, kind: str, count: int) -> np.ndarray:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), dtype=kind)

    def planes(self, count: int) -> np.ndarray:
        low, middle, high = self.numbers("<u1", 3 * count).reshape(3, count).astype(np.int64)
        return low | middle << 8 | high << 16


def _description(reader: _Reader, network: str | None) -> registry.Architecture:
    text = reader.take(int(reader.numbers("<u4", 1)[0]))
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise UnsoundError(FOREIGN) from None
    if not isinstance(found, dict) or registry.RESIZED in found:
        raise UnsoundError(FOREIGN)
    custom_model.check_allowed(found.get("name"), network)
    return found


def _dense(description: registry.Architecture, most: int) -> Skeleton:
    try:
        dense = skeletons.of(description)
    except ValueError:
        raise UnsoundError(FOREIGN) from None
    if dense.elements > most:
        raise UnsoundError(
            f"it asks for a network of {dense.elements:,} numbers, more than the {most:,} that a"
            " file of its size may ask for",
            remedy=f"if you trust it, allow them: --max-elements {dense.elements} (max_elements)",
        )
    return dense


def _small(
    reader: _Reader, description: registry.Architecture, dense: Skeleton
) -> tuple[registry.Architecture, list[tuple[int, ...]]]:
    """The architecture and the shapes of a network that may have lost filters."""
    shapes = list(dense.shapes.values())
    lost = reader.take(1)
    if lost == b"\0":
        return description, shapes
    if lost != b"\1":
        raise UnsoundError("its metadata do not say whether filters were removed")
    slots = len(skeletons.differences(dense.sizes, {}))
    taken = reader.planes(slots + sum(map(len, shapes))).tolist()
    changed = skeletons.resized(dense.sizes, taken[:slots])
    rest = iter(taken[slots:])
    shapes = [tuple(size - next(rest) for size in shape) for shape in shapes]
    if any(size < 0 for shape in shapes for size in shape):
        raise UnsoundError("more filters were removed from its network than that has")
    return description | ({registry.RESIZED: changed} if changed else {}), shapes


def _layout(reader: _Reader, most: int, network: str | None) -> Layout:
    description = _description(reader, network)
    dense = _dense(description, most)
    architecture, shapes = _small(reader, description, dense)
    dtypes = list(dense.dtypes.values())
    kinds = list(reader.take(len(shapes)))
    tied = [index for index, kind in enumerate(kinds) if kind == layouts.TIED]
    ties = dict(zip(tied, reader.numbers("<u4", len(tied)).tolist(), strict=True))
    for index, kind in enumerate(kinds):
        raw = kind != layouts.RAW or dtypes[index] in layouts.RAW_TYPES
        floats = kind not in layouts.FLOATS or dtypes[index] == torch.float32
        channels = kind < layouts.QUANTIZED or not kind & layouts.PER_CHANNEL or shapes[index]
        if kind not in layouts.KINDS or not (raw and floats and channels):
            raise UnsoundError("a tensor of its network is not stored in a way that is known")
    for index, other in ties.items():
        if (
            other >= len(kinds)
            or kinds[other] == layouts.TIED
            or (shapes[other], dtypes[other]) != (shapes[index], dtypes[index])
        ):
            raise UnsoundError("a tensor of its network is said to be one that it cannot be")
    return Layout(architecture, list(dense.shapes), shapes, dtypes, kinds, ties)


def _raw(reader: _Reader, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    array = reader.numbers(layouts.RAW_TYPES[dtype], math.prod(shape))
    native = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    if dtype == torch.bool:
        native = native != 0
    return native.view(dtype).reshape(shape)


def _tables(reader: _Reader, arrays: Sequence[layouts.Coded]) -> list[Table]:
    """A table for each array."""
    count = sum(array.length > 0 for array in arrays)
    shifts = reader.numbers("<u1", count).tolist()
    zeros = reader.numbers("<u1", count).tolist()
    leasts = reader.numbers("<i4", count).tolist()
    sizes = (reader.numbers("<u2", count).astype(np.int64) + 1).tolist()
    roots = reader.planes(sum(sizes))
    parts = np.split(roots, np.cumsum(sizes))[:count]
    stored = [Table(*fields) for fields in zip(shifts, leasts, parts, zeros, strict=True)]
    for table in stored:
        largest = table.roots.max()
        if max(table.shift, table.zeros) > entropy_coding.LARGEST_SHIFT or not (
            0 < largest <= entropy_coding.LARGEST_ROOT
        ):
            raise UnsoundError("a table of its symbols is not one that can be")
    left = iter(stored)
    return [next(left) if array.length else entropy_coding.EMPTY for array in arrays]


def from_bytes(data: bytes, most: int, network: str | None) -> Metadata:
    """The metadata of a file. most: how many numbers its unpruned network may have. network: the
    custom network (`path/to/file.py:factory`) that it may name; None: only those of the catalogue.

    Raises UnsoundError where they are not sound; UserError where they name another custom network,
    or the custom network's file is missing or has changed.
    """
    reader = _Reader(data)
    layout = _layout(reader, most, network)
    raw = {
        index: _raw(reader, layout.shapes[index], layout.dtypes[index])
        for index in layout.of_kind(layouts.RAW)
    }
    tables = _tables(reader, layouts.coded(layout))
    if reader.at != len(data):
        raise UnsoundError("its metadata are longer than they should be")
    return Metadata(layout, raw, tables)
