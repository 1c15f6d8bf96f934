"""Rows of uint8 images on disk, read and written in blocks and never memory-mapped.

Mapped pages count as memory of the process until the kernel takes them back. Plain reads and
writes do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK_BYTES = 16 * 2**20


def per_block(row_shape: Sequence[int], block_bytes: int = BLOCK_BYTES) -> int:
    """The number of rows in a block of `block_bytes`, at least one."""
    return max(1, block_bytes // int(np.prod(row_shape)))


def append(file: BinaryIO, block: np.ndarray) -> None:
    """Writes uint8 rows at the end of a file."""
    file.write(np.ascontiguousarray(block).reshape(-1))


@dataclass(frozen=True)
class RowFile:
    """A file of `shape[0]` uint8 rows without a header, indexed like an array on its first axis.

    `rows[a:b]` and `rows[indices]` read only those rows into memory.
    """

    path: Path
    shape: tuple[int, ...]
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        indices = np.arange(len(self))[wanted]
        block = np.empty((len(indices), *self.shape[1:]), np.uint8)
        if not len(block):
            return block
        # Neighbouring rows are read at once.
        starts = np.flatnonzero(np.diff(indices, prepend=-2) != 1)
        ends = [*starts[1:], len(indices)]
        size = int(np.prod(self.shape[1:]))
        with self.path.open("rb", buffering=0) as file:
            for start, end in zip(starts, ends, strict=True):
                file.seek(int(indices[start]) * size)
                rows = memoryview(block[start:end]).cast("B")
                if file.readinto(rows) != len(rows):
                    raise OSError(None, "cut short while it was being read", str(self.path))
        return block


@dataclass(frozen=True)
class Selection:
    """The rows `index` (int [n]) of an array or a RowFile. Slicing it reads only those rows."""

    images: np.ndarray | RowFile
    index: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, wanted: slice) -> np.ndarray:
        return self.images[self.index[wanted]]
