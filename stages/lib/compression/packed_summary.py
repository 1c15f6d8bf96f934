"""What a packed file holds, and how close it comes to what its symbols need at least."""

from dataclasses import dataclass

import numpy as np
import torch

from stages.lib.compression import container, entropy, entropy_coding, packed
from stages.lib.compression import packed_layout as layouts
from stages.lib.compression.packed import Contents
from stages.lib.models import registry


@dataclass(frozen=True)
class TensorSummary:
    """A tensor of a packed file.

    stored: `4 bit, 20 scales`, `float16`, `float32`, `int64`, `as NAME`; bits: the least width that
    holds all integers of a quantized tensor, else None; sparsity: the share of zeros, 0…1;
    coded_bytes: what it takes of the payload, scales included (a tensor of whole numbers: none, it
    is in the header); bound_bytes: n · H of the integers' histogram, and all else raw: scales and
    floats in 2 or 4 bytes each as they are stored, whole numbers in the bytes of their type.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    bits: int | None
    sparsity: float
    coded_bytes: float
    bound_bytes: float


@dataclass(frozen=True)
class Summary:
    """A packed file. payload_bytes: the coded symbols; header_bytes: all else, that is the
    architecture, tables and whole numbers; dense_bytes: all tensors in the types of the network.
    """

    version: int
    architecture: registry.Architecture
    tensors: tuple[TensorSummary, ...]
    file_bytes: int
    header_bytes: int
    payload_bytes: int
    dense_bytes: int

    @property
    def bound_bytes(self) -> float:
        """The sum over the tensors."""
        return sum(tensor.bound_bytes for tensor in self.tensors)

    @property
    def overhead(self) -> float:
        """The file's size over its bound, less 1. Below 0 where floats take less than raw."""
        return self.file_bytes / self.bound_bytes - 1 if self.bound_bytes else 0.0


def bits_of(integers: np.ndarray) -> int:
    """The least width, 2 or more, at which symmetric quantization has all these integers."""
    if not integers.size:
        return 2
    return max(max(int(integers.max()), -int(integers.min())).bit_length() + 1, 2)


def _sparsity(tensor: torch.Tensor) -> float:
    return 1 - int(tensor.count_nonzero()) / tensor.numel() if tensor.numel() else 0.0


def _float_bytes(contents: Contents) -> dict[int, tuple[float, int]]:
    """What each float tensor, or a quantized one's scales, takes, by index: its share of its
    group's payload, and raw.
    """
    layout = contents.metadata.layout
    coded = zip(contents.metadata.tables, contents.arrays, strict=True)
    left = list(coded)[len(layout.quantized) :]
    found = {}
    for group in layouts.groups(layout):
        parts, left = left[: group.count], left[group.count :]
        payload = sum(entropy_coding.payload_bits(*part) for part in parts) / 8
        total = max(sum(group.lengths), 1)
        for index, length in zip(group.shapes, group.lengths, strict=True):
            found[index] = (payload * length / total, length * 2 * group.count)
    return found


def _tensors(contents: Contents) -> list[TensorSummary]:
    layout = contents.metadata.layout
    floats = _float_bytes(contents)
    arrays = iter(zip(contents.metadata.tables, contents.arrays, strict=False))
    found = []
    for index, (name, kind) in enumerate(zip(layout.names, layout.kinds, strict=True)):
        shape = layout.shapes[index]
        bits, (taken, bound) = None, floats.get(index, (0.0, 0))
        if kind >= layouts.QUANTIZED:
            table, integers = next(arrays)
            bits, zeros = bits_of(integers), _sparsity(contents.quantized[name].Q)
            count = contents.quantized[name].S.numel()
            stored = f"{bits} bit, {count} scale{'s' * (count != 1)}"
            taken += entropy_coding.payload_bits(table, integers) / 8
            bound += entropy.bound_bits(integers) / 8
        elif kind == layouts.TIED:
            source = layout.names[layout.ties[index]]
            stored = f"as {source}"
            zeros = _sparsity(
                contents.quantized[source].Q
                if source in contents.quantized
                else contents.tensors[source]
            )
        else:
            tensor = contents.tensors[name]
            stored, zeros = str(tensor.dtype).removeprefix("torch."), _sparsity(tensor)
            if kind == layouts.HALF:
                stored = "float16"
            if kind == layouts.RAW:
                bound = tensor.numel() * tensor.element_size()
        found.append(TensorSummary(name, shape, stored, bits, zeros, taken, bound))
    return found


def inspect(
    data: bytes,
    where: str = "packed network",
    max_elements: int | None = None,
    network: str | None = None,
) -> Summary:
    """Decodes a packed file's bytes and says what is in them. Errors are those of `unpack`."""
    with packed.errors_naming(where):
        contents = packed.decoded(data, max_elements, network)
    layout = contents.metadata.layout
    _, payload = container.unwrap(data)
    sizes = [
        int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True)
    ]
    return Summary(
        container.VERSION,
        layout.architecture,
        tuple(_tensors(contents)),
        len(data),
        len(data) - len(payload),
        len(payload),
        sum(sizes),
    )
