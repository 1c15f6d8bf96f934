"""How a packed file stores each tensor of a network; writer and reader share it.

docs/packed-format.md has the format, byte by byte.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

# How a tensor is stored: one byte each.
TIED, RAW, HALF, SINGLE = range(4)
# A quantized one is this, plus those of the three that hold.
QUANTIZED, PER_CHANNEL, HALF_SCALES, WIDE = 16, 1, 2, 4
FLOATS = {HALF, SINGLE, *range(QUANTIZED, QUANTIZED + 8)}
KINDS = {TIED, RAW, *FLOATS}
# The types that are stored as they are, the lowest byte first.
RAW_TYPES = {
    torch.bool: "<u1", torch.uint8: "<u1", torch.int8: "<i1", torch.int16: "<i2",
    torch.int32: "<i4", torch.int64: "<i8", torch.float16: "<f2", torch.bfloat16: "<i2",
    torch.float32: "<f4", torch.float64: "<f8", torch.complex64: "<c8", torch.complex128: "<c16",
}  # fmt: skip


class Entry(NamedTuple):
    """A tensor of the network: name, shape and type as in the state dict; its kind, as above; of a
    TIED one the name of the tensor that it is.
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
    """Floats that are coded as one array: half: as float16; shapes: of its tensors, by name."""

    half: bool
    shapes: dict[str, tuple[int, ...]]

    @property
    def lengths(self) -> list[int]:
        """How many numbers each of its tensors is."""
        return [math.prod(shape) for shape in self.shapes.values()]

    @property
    def arrays(self) -> int:
        """In how many arrays it is coded."""
        return 1 if self.half else 2


def groups(entries: Iterable[Entry]) -> list[Group]:
    """All scales, and all float tensors of one last name (`bias`, `running_var`), apart by float16
    and float32, vectors and others: alone, most are too short for a table. In the order in which
    the first of each appears.
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
    """A coded array: its numpy type and length."""

    dtype: np.dtype
    length: int


def coded(entries: Sequence[Entry]) -> list[Coded]:
    """The arrays that are entropy-coded, in order: the integers of each quantized tensor; then, of
    each group of floats, its bits as whole numbers: one array for float16, for float32 one of the
    upper and one of the lower 16 bits.
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
