"""What a packed file holds of a network, tensor by tensor; writer and reader share it.

docs/packed-format.md has the format, byte by byte.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from stages.lib.models import registry

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


class Layout(NamedTuple):
    """The architecture, and for each tensor of the state dict, in its order: name, shape, the
    network's type, the kind above; for a TIED one, by index, the tensor that it is.
    """

    architecture: registry.Architecture
    names: list[str]
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    kinds: list[int]
    ties: dict[int, int]

    def of_kind(self, kind: int) -> list[int]:
        """The tensors stored so, by index."""
        return [index for index, one in enumerate(self.kinds) if one == kind]

    @property
    def quantized(self) -> list[int]:
        """The quantized tensors, by index."""
        return [index for index, kind in enumerate(self.kinds) if kind >= QUANTIZED]

    def scales(self, index: int) -> tuple[int, ...]:
        """The shape of a quantized tensor's scales."""
        return self.shapes[index][:1] if self.kinds[index] & PER_CHANNEL else ()


class Group(NamedTuple):
    """Float arrays that are coded as one: their shapes by tensor index; half: as float16."""

    half: bool
    shapes: dict[int, tuple[int, ...]]

    @property
    def lengths(self) -> list[int]:
        """How many numbers each of them is."""
        return [math.prod(shape) for shape in self.shapes.values()]

    @property
    def count(self) -> int:
        """In how many arrays it is coded."""
        return 1 if self.half else 2


def groups(layout: Layout) -> list[Group]:
    """All scales, and all float tensors of one last name (`bias`, `running_var`), apart by float16
    and float32, vectors and others: alone, most are too short for a table. In the order in which
    the first of each appears.
    """
    found: dict[tuple, Group] = {}
    for index, kind in enumerate(layout.kinds):
        shape = layout.shapes[index]
        if kind >= QUANTIZED:
            half, shape = bool(kind & HALF_SCALES), layout.scales(index)
            key = (half,)
        elif kind in (HALF, SINGLE):
            half = kind == HALF
            key = (half, layout.names[index].rpartition(".")[2], len(shape) > 1)
        else:
            continue
        found.setdefault(key, Group(half, {})).shapes[index] = shape
    return list(found.values())


class Coded(NamedTuple):
    """A coded array: its numpy type and length."""

    dtype: np.dtype
    length: int


def coded(layout: Layout) -> list[Coded]:
    """The arrays that are entropy-coded, in order: the integers of each quantized tensor; then, of
    each group of floats, its bits as whole numbers: one array for float16, for float32 one of the
    upper and one of the lower 16 bits.
    """
    found = [
        Coded(
            np.dtype(np.int16 if layout.kinds[index] & WIDE else np.int8),
            math.prod(layout.shapes[index]),
        )
        for index in layout.quantized
    ]
    for group in groups(layout):
        found += [Coded(np.dtype(np.uint16), sum(group.lengths))] * group.count
    return found
