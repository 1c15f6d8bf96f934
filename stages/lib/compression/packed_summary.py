"""Summarizes a packed file: its contents, and how near its size is to the entropy bound."""

import itertools
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch

from stages.lib.compression import entropy, entropy_coding
from stages.lib.compression import packed_layout as layout
from stages.lib.compression.packed import Contents
from stages.lib.models import registry


class TensorSummary(NamedTuple):
    """A tensor of a packed file.

    stored: `4 bit, 20 scales`, `float16`, `float32`, `int64`, `as NAME`.
    bits: of a quantized tensor, the smallest width that represents all its integers, else None.
    sparsity: the share of zeros, 0…1.
    coded_bytes: its part of the payload, with its scales; 0 for a tensor of integers, which is in
        the header.
    bound_bytes: n · H of the integers' histogram; uncompressed for all else: scales and floats in
        2 or 4 bytes each, as they are stored, and integers in the bytes of their type.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    bits: int | None
    sparsity: float
    coded_bytes: float
    bound_bytes: float


class Summary(NamedTuple):
    """A packed file.

    payload_bytes: of the coded symbols.
    dense_bytes: of all tensors in the network's types.
    """

    architecture: registry.Architecture
    tensors: list[TensorSummary]
    file_bytes: int
    payload_bytes: int
    dense_bytes: int

    @property
    def header_bytes(self) -> int:
        """The bytes of all but the coded symbols: container, architecture, tables and integers."""
        return self.file_bytes - self.payload_bytes

    @property
    def bound_bytes(self) -> float:
        """The sum of the tensors' bounds."""
        return sum(tensor.bound_bytes for tensor in self.tensors)

    @property
    def overhead(self) -> float:
        """The file's size divided by its bound, minus 1. It is below 0 if coding the floats saves
        more than the headers cost.
        """
        return self.file_bytes / self.bound_bytes - 1 if self.bound_bytes else 0.0


def bits_of(integers: np.ndarray) -> int:
    """The smallest width, 2 or more, at which symmetric quantization has all these integers."""
    largest = max(int(integers.max()), -int(integers.min())) if integers.size else 0
    return max(largest.bit_length() + 1, 2)


def _sparsity(tensor: torch.Tensor) -> float:
    return 1 - int(tensor.count_nonzero()) / tensor.numel() if tensor.numel() else 0.0


def _bytes(contents: Contents) -> dict[str, np.ndarray]:
    """For each tensor, by name and with its scales: its bytes of the payload (for floats, their
    share of their group's) and its bound.
    """
    coded = iter(zip(contents.metadata.tables, contents.arrays, strict=True))
    taken: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for group in layout.groups(contents.metadata.entries):
        parts = [next(coded) for _ in group.coded]
        payload = sum(itertools.starmap(entropy_coding.payload_bits, parts)) / 8
        for name, length in zip(group.shapes, group.lengths, strict=True):
            share = length / max(sum(group.lengths), 1)
            raw = length * group.dtype.itemsize
            bound = entropy.bound_bits(parts[0][1]) / 8 if group.is_integer else raw
            taken[name] += (payload * share, bound)
    for name, tensor in contents.metadata.raw.items():
        taken[name] += (0, tensor.numel() * tensor.element_size())
    return taken


def _tensors(contents: Contents) -> list[TensorSummary]:
    quantized, taken = contents.quantized, _bytes(contents)
    values = contents.tensors | {name: parts.Q for name, parts in quantized.items()}
    rows = []
    for entry in contents.metadata.entries:
        bits, stored = None, str(entry.dtype).removeprefix("torch.")
        if entry.is_quantized:
            bits, scales = bits_of(values[entry.name].numpy()), quantized[entry.name].S.numel()
            stored = f"{bits} bit, {scales} scale{'s' * (scales != 1)}"
        elif entry.source:
            stored = f"as {entry.source}"
        elif entry.kind == layout.HALF:
            stored = "float16"
        sparsity = _sparsity(values[entry.source or entry.name])
        about = (entry.name, entry.shape, stored, bits, sparsity)
        rows.append(TensorSummary(*about, *taken[entry.name].tolist()))
    return rows


def summarize(contents: Contents) -> Summary:
    """Summarizes a packed file that `packed.decode` has read."""
    entries = contents.metadata.entries
    return Summary(
        contents.metadata.architecture,
        _tensors(contents),
        contents.file_bytes,
        contents.payload_bytes,
        sum(math.prod(entry.shape) * entry.dtype.itemsize for entry in entries),
    )
