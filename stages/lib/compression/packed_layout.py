"""How a packed file stores each tensor of a network. Writer and reader share this.

docs/packed-format.md describes the format byte by byte.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

# The kind of a tensor, one byte each: how it is stored.
TIED, RAW, HALF, SINGLE = range(4)
# The kind of a quantized tensor is this plus those of the next three that apply.
QUANTIZED, PER_CHANNEL, HALF_SCALES, WIDE = 16, 1, 2, 4
FLOATS = {HALF, SINGLE, *range(QUANTIZED, QUANTIZED + 8)}


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
    """Numbers that are coded together: of one quantized tensor, or of several float tensors.

    dtype: int8 or int16 for codes, float16 or float32 for scales and other floats.
    shapes: of the tensors, or of their scales, by name.
    """

    dtype: np.dtype
    shapes: dict[str, tuple[int, ...]]

    @property
    def is_integer(self) -> bool:
        return self.dtype.kind == "i"

    @property
    def lengths(self) -> list[int]:
        """How many numbers each tensor has."""
        return [math.prod(shape) for shape in self.shapes.values()]

    @property
    def coded(self) -> list[tuple[int, np.dtype]]:
        """Length and type of its coded arrays: the codes; for floats their bits as integers, one
        array for float16, two for float32 (the upper and the lower 16 bits).
        """
        dtype = self.dtype if self.is_integer else np.dtype(np.uint16)
        return [(sum(self.lengths), dtype)] * (2 if self.dtype == np.float32 else 1)

    def split(self, tensors: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        """The arrays that are coded, from the tensors by name."""
        flat = [tensors[name].contiguous().numpy().reshape(-1) for name in self.shapes]
        numbers = np.concatenate(flat).astype(self.dtype)
        if self.dtype == np.float32:
            bits = numbers.view(np.uint32)
            return [(bits >> 16).astype(np.uint16), bits.astype(np.uint16)]
        return [numbers if self.is_integer else numbers.view(np.uint16)]

    def join(self, arrays: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """The tensors by name, floats as float32, from the coded arrays."""
        if self.dtype == np.float32:
            numbers = (arrays[0].astype(np.uint32) << 16 | arrays[1]).view(np.float32)
        else:
            numbers = arrays[0] if self.is_integer else arrays[0].view(np.float16).astype("f4")
        parts = torch.from_numpy(numbers).split(self.lengths)
        # Copies: a slice would keep the whole group in memory and be saved with it.
        return {
            name: (part.clone() if len(parts) > 1 else part).reshape(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def groups(entries: Iterable[Entry]) -> list[Group]:
    """What is coded, in order: the codes of each quantized tensor; then the floats, of which most
    tensors alone are too short for a table.

    One group of floats has all scales, the others the tensors with the same last name (`bias`,
    `running_var`). Each is divided into float16 and float32, and into vectors and others. These
    groups are in the order of their first tensors.
    """
    codes: list[Group] = []
    floats: dict[tuple, Group] = {}
    for entry in entries:
        if entry.kind not in FLOATS:
            continue
        if entry.is_quantized:
            integers = np.dtype(np.int16 if entry.kind & WIDE else np.int8)
            codes.append(Group(integers, {entry.name: entry.shape}))
            half, shape = bool(entry.kind & HALF_SCALES), entry.scale_shape
            key = (half,)
        else:
            half, shape = entry.kind == HALF, entry.shape
            key = (half, entry.name.rpartition(".")[2], len(shape) > 1)
        group = Group(np.dtype(np.float16 if half else np.float32), {})
        floats.setdefault(key, group).shapes[entry.name] = shape
    return [*codes, *floats.values()]


def coded(entries: Iterable[Entry]) -> list[tuple[int, np.dtype]]:
    """Length and type of all entropy-coded arrays, in order."""
    return [array for group in groups(entries) for array in group.coded]
