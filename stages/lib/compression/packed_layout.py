"""How a packed file stores each tensor of a network. Writer and reader share this.

docs/packed-format.md describes the format byte by byte.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

# The kind of a tensor, one byte each: how it is stored.
TIED, RAW, HALF, SINGLE = range(4)
# The kind of a quantized tensor is this plus those of the next three that apply.
QUANTIZED, PER_CHANNEL, HALF_SCALES, WIDE = 16, 1, 2, 4
FLOATS = {HALF, SINGLE, *range(QUANTIZED, QUANTIZED + 8)}
KINDS = {TIED, RAW, *FLOATS}
# The types that are stored uncompressed, lowest byte first.
RAW_TYPES = {
    torch.bool: "<u1", torch.uint8: "<u1", torch.int8: "<i1", torch.int16: "<i2",
    torch.int32: "<i4", torch.int64: "<i8", torch.float16: "<f2", torch.bfloat16: "<i2",
    torch.float32: "<f4", torch.float64: "<f8", torch.complex64: "<c8", torch.complex128: "<c16",
}  # fmt: skip


class Entry(NamedTuple):
    """A tensor of the network: name, shape and type as in the state dict, and its kind as above.
    For a TIED tensor, also the name of the tensor that it is tied to.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: int
    source: str | None = None

    @property
    def is_quantized(self) -> bool:
        return self.kind >= QUANTIZED

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The shape of a quantized tensor's scales."""
        return self.shape[:1] if self.kind & PER_CHANNEL else ()


class Group(NamedTuple):
    """Float tensors that are coded together.

    half: whether they are float16.
    shapes: of the tensors, by name.
    """

    half: bool
    shapes: dict[str, tuple[int, ...]]

    @property
    def lengths(self) -> list[int]:
        """The number of values of each tensor."""
        return [math.prod(shape) for shape in self.shapes.values()]

    @property
    def arrays(self) -> int:
        """The number of arrays in which the group is coded."""
        return 1 if self.half else 2


def groups(entries: Iterable[Entry]) -> list[Group]:
    """The groups of float tensors. Most tensors alone are too short for a table.

    One group has all scales, the others the tensors with the same last name (`bias`,
    `running_var`). Each is divided into float16 and float32, and into vectors and others. Groups
    are in the order of their first tensors.
    """
    gathered: dict[tuple, Group] = {}
    for entry in entries:
        if entry.kind not in FLOATS:
            continue
        if entry.is_quantized:
            half, shape = bool(entry.kind & HALF_SCALES), entry.scale_shape
            key = (half,)
        else:
            half, shape = entry.kind == HALF, entry.shape
            key = (half, entry.name.rpartition(".")[2], len(shape) > 1)
        gathered.setdefault(key, Group(half, {})).shapes[entry.name] = shape
    return list(gathered.values())


class Coded(NamedTuple):
    """The numpy type and length of a coded array."""

    dtype: np.dtype
    length: int


def coded(entries: Sequence[Entry]) -> list[Coded]:
    """The entropy-coded arrays, in order: the integers of each quantized tensor; then the bits of
    each group of floats as integers, one array for float16, two for float32 (the upper and the
    lower 16 bits).
    """
    integers = [
        Coded(np.dtype(np.int16 if entry.kind & WIDE else np.int8), math.prod(entry.shape))
        for entry in entries
        if entry.is_quantized
    ]
    floats = [
        Coded(np.dtype(np.uint16), sum(group.lengths))
        for group in groups(entries)
        for _ in range(group.arrays)
    ]
    return integers + floats
