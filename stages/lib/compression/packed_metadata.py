"""Writes and reads the metadata of a packed file: architecture, kinds of tensors, tables."""

import json
import math
from typing import NamedTuple

import numpy as np
import torch

from stages.lib.compression import entropy_coding
from stages.lib.compression import packed_layout as layout
from stages.lib.compression.container import UnsoundError, require
from stages.lib.compression.entropy_coding import Table
from stages.lib.compression.packed_layout import Entry
from stages.lib.core import custom_model
from stages.lib.models import registry, skeletons
from stages.lib.models.skeletons import Skeleton

# Integers in planes are smaller than this.
PLANES_END = 2**24
FOREIGN = "its description of a network is not one of ours"


class Metadata(NamedTuple):
    """The metadata of a packed file.

    architecture: with the sizes that removed filters changed.
    entries: one for each tensor, in the order of the state dict.
    raw: the tensors that are stored uncompressed, by name.
    tables: one for each of the `layout.coded` arrays; those of empty arrays are not stored.
    """

    architecture: registry.Architecture
    entries: list[Entry]
    raw: dict[str, torch.Tensor]
    tables: list[Table]


def _planes(numbers: np.ndarray) -> bytes:
    """Integers as planes: all lowest bytes, then all middle bytes, then all highest bytes. The
    latter are mostly zeros and deflate to almost nothing.
    """
    return numbers.astype("<u4").view(np.uint8).reshape(-1, 4).T[:3].tobytes()


def to_bytes(metadata: Metadata, skeleton: Skeleton) -> bytes:
    """The bytes of the metadata. ValueError if they do not fit the architecture's skeleton."""
    entries = metadata.entries
    resized = metadata.architecture.get(registry.RESIZED, {})
    now = skeleton.numbers(resized, [entry.shape for entry in entries])
    taken = np.subtract(skeleton.numbers({}, skeleton.shapes.values()), now)
    if ((taken < 0) | (taken >= PLANES_END)).any():
        raise ValueError("a tensor is larger than its architecture has it")
    unpruned = registry.portable(registry.dense_architecture(metadata.architecture))
    text = json.dumps(unpruned, separators=(",", ":"), ensure_ascii=False).encode()
    names = [entry.name for entry in entries]
    ties = [names.index(entry.source) for entry in entries if entry.kind == layout.TIED]
    arrays = zip(layout.coded(entries), metadata.tables, strict=True)
    tables = [table for (length, _), table in arrays if length]
    return b"".join(
        (
            len(text).to_bytes(4, "little"),
            text,
            b"\1" + _planes(taken) if taken.any() else b"\0",
            bytes(entry.kind for entry in entries),
            np.array(ties, dtype="<u4").tobytes(),
            *(raw.reshape(-1).view(torch.uint8).numpy().tobytes() for raw in metadata.raw.values()),
            np.array([table.shift for table in tables], dtype="<u1").tobytes(),
            np.array([table.zeros for table in tables], dtype="<u1").tobytes(),
            np.array([table.least for table in tables], dtype="<i4").tobytes(),
            np.array([len(table.roots) - 1 for table in tables], dtype="<u2").tobytes(),
            _planes(np.concatenate([table.roots for table in tables])) if tables else b"",
        )
    )


class _Reader:
    """Reads bytes piece by piece, and never allocates more than there are."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        enough = count <= len(self.data) - self.position
        require(enough, "its metadata are shorter than they should be")
        self.position += count
        return self.data[self.position - count : self.position]

    def numbers(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)

    def planes(self, count: int) -> np.ndarray:
        low, middle, high = self.numbers("<u1", 3 * count).reshape(3, count).astype(np.int64)
        return low | middle << 8 | high << 16


def _described(
    reader: _Reader, most: int, network: str | None
) -> tuple[registry.Architecture, Skeleton]:
    """The unpruned network."""
    text = reader.take(int(reader.numbers("<u4", 1)[0]))
    try:
        architecture = json.loads(text.decode())
        require(isinstance(architecture, dict) and registry.RESIZED not in architecture, FOREIGN)
        architecture["name"] = custom_model.allowed_name(architecture.get("name"), network)
        skeleton = skeletons.of(architecture)
    except (ValueError, RecursionError):
        raise UnsoundError(FOREIGN) from None
    if skeleton.elements > most:
        raise UnsoundError(
            f"it asks for a network of {skeleton.elements:,} numbers, more than the {most:,} that a"
            " file of its size may ask for",
            remedy=f"if you trust it, allow them: --max-elements {skeleton.elements}"
            " (max_elements)",
        )
    return architecture, skeleton


def _resized(reader: _Reader, skeleton: Skeleton) -> tuple[dict, list[tuple[int, ...]]]:
    """The sizes that removed filters changed, if any, and the shapes of the network's tensors."""
    lost = reader.take(1)
    if lost == b"\0":
        return {}, list(skeleton.shapes.values())
    require(lost == b"\1", "its metadata do not say whether filters were removed")
    count = len(skeleton.numbers({}, skeleton.shapes.values()))
    resized, shapes = skeleton.smaller(reader.planes(count).tolist())
    possible = all(size >= 0 for shape in shapes for size in shape)
    require(possible, "more filters were removed from its network than that has")
    return resized, shapes


def _entries(reader: _Reader, skeleton: Skeleton, shapes: list[tuple[int, ...]]) -> list[Entry]:
    kinds = list(reader.take(len(shapes)))
    entries = list(map(Entry, skeleton.shapes, shapes, skeleton.dtypes.values(), kinds))
    for entry in entries:
        per_channel = entry.is_quantized and entry.kind & layout.PER_CHANNEL
        floats = entry.dtype == torch.float32 and (entry.shape or not per_channel)
        known = entry.kind in (layout.TIED, layout.RAW) or (floats and entry.kind in layout.FLOATS)
        require(known, "a tensor of its network is not stored in a way that is known")
    tied = [index for index, kind in enumerate(kinds) if kind == layout.TIED]
    for index, source in zip(tied, reader.numbers("<u4", len(tied)).tolist(), strict=True):
        other = entries[source] if source < len(entries) else entries[index]
        # Of the same shape and type, and itself stored.
        fits = other.kind != layout.TIED and other[1:3] == entries[index][1:3]
        require(fits, "a tensor of its network is said to be one that it cannot be")
        entries[index] = entries[index]._replace(source=other.name)
    return entries


def _raw(reader: _Reader, entry: Entry) -> torch.Tensor:
    stored = reader.numbers("<u1", math.prod(entry.shape) * entry.dtype.itemsize)
    flat = torch.from_numpy(stored.copy())
    # A byte of a bool may be neither 0 nor 1 in a hostile file.
    flat = flat != 0 if entry.dtype == torch.bool else flat.view(entry.dtype)
    return flat.reshape(entry.shape)


def _tables(reader: _Reader, arrays: list[tuple[int, np.dtype]]) -> list[Table]:
    """Reads a table for each array."""
    count = sum(length > 0 for length, _ in arrays)
    shifts = reader.numbers("<u1", count).tolist()
    zeros = reader.numbers("<u1", count).tolist()
    leasts = reader.numbers("<i4", count).tolist()
    sizes = reader.numbers("<u2", count).astype(np.int64) + 1
    roots = np.split(reader.planes(int(sizes.sum())), np.cumsum(sizes))[:count]
    tables = list(map(Table, shifts, leasts, roots, zeros))
    for table in tables:
        shifted = max(table.shift, table.zeros) <= entropy_coding.LARGEST_SHIFT
        rooted = 0 < table.roots.max() <= entropy_coding.LARGEST_ROOT
        require(shifted and rooted, "a table of its symbols is not one that can be")
    left = iter(tables)
    return [next(left) if length else entropy_coding.EMPTY for length, _ in arrays]


def from_bytes(data: bytes, most: int, network: str | None) -> Metadata:
    """Reads the metadata of a file.

    most: the most numbers that its unpruned network may have.
    network: the custom network (`path/to/file.py:factory`) that it may name; None: only registered
        networks.

    Raises UnsoundError if the metadata are damaged; UserError if they name another custom network,
    or the custom network's Python file is missing or has changed.
    """
    reader = _Reader(data)
    architecture, skeleton = _described(reader, most, network)
    resized, shapes = _resized(reader, skeleton)
    if resized:
        architecture |= {registry.RESIZED: resized}
    entries = _entries(reader, skeleton, shapes)
    raw = {entry.name: _raw(reader, entry) for entry in entries if entry.kind == layout.RAW}
    tables = _tables(reader, layout.coded(entries))
    require(reader.position == len(data), "its metadata are longer than they should be")
    return Metadata(architecture, entries, raw, tables)
