"""Writes images from any source into one file of uint8 rows, a block at a time."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from stages.lib.core import hardware
from stages.lib.core.errors import UserError, printable
from stages.lib.data.decoding import (
    LARGEST,
    SMALLEST,
    UnreadableError,
    decode,
    quiet_pillow,
    square,
)

# Pillow decodes without Python's lock, but the code around it needs it: more threads do not help.
_MOST_THREADS = 16
_MOST_FILES = 1024
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class RowFile:
    """Rows of a file. Only the rows that are indexed are read into memory.

    path: of the file of uint8 rows, without a header.
    row_shape: (channels, height, width).
    index: int [n], the rows of the file that are used.
    """

    path: Path
    row_shape: tuple[int, ...]
    index: np.ndarray
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.row_shape)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, wanted: slice) -> np.ndarray:
        # Pages count as memory of the process as long as they are mapped: map them anew each time.
        rows = np.memmap(self.path, np.uint8, "r").reshape(-1, *self.row_shape)
        return rows[self.index[wanted]]

    def take(self, index: np.ndarray) -> "RowFile":
        """Those of these rows that `index` (int [n]) names."""
        return replace(self, index=self.index[index])


def _per_block(row_shape: Sequence[int]) -> int:
    """The number of rows in a block, at least one."""
    return max(1, _BLOCK_BYTES // math.prod(row_shape))


def decode_all(
    root: Path, files: Sequence[str], size: int | None, mode: str, destination: Path
) -> tuple[RowFile, dict[int, str]]:
    """Decodes files on all cores, with a progress bar.

    files: relative to `root`.
    size, mode: as in `decoding.decode`.
    destination: the file to write.

    Returns the rows of the readable files, in the order of `files`, and why the others are
    unreadable, by index. Raises UserError if size is None and the images differ in size.
    """

    def decoded(name: str) -> np.ndarray | UnreadableError:
        try:
            return decode(root / name, size, mode)
        except UnreadableError as error:
            return error

    unreadable: dict[int, str] = {}
    shape: tuple[int, ...] = ()
    start = 0
    with (
        quiet_pillow(),
        destination.open("wb") as file,
        ThreadPoolExecutor(min(hardware.cores(), _MOST_THREADS)) as pool,
        tqdm(total=len(files), desc="decoding", unit="file", disable=None, leave=False) as bar,
    ):
        while start < len(files):
            step = min(
                _MOST_FILES, _per_block(shape or (len(mode), size or LARGEST, size or LARGEST))
            )
            # Where this loop is left early, `map` drops the files that wait.
            images = pool.map(decoded, files[start : start + step])
            for index, image in enumerate(images, start):
                bar.update()
                if isinstance(image, UnreadableError):
                    unreadable[index] = str(image)
                    continue
                shape = shape or image.shape
                if size is None and (image.shape != shape or min(shape[1:]) < SMALLEST):
                    raise UserError(
                        f"data.image_size: auto, but {printable(files[index])} has"
                        f" {image.shape[2]}×{image.shape[1]} pixels, the first"
                        f" {shape[2]}×{shape[1]}; allowed: images of one size, at least"
                        f" {SMALLEST} a side, or a number for data.image_size"
                    )
                file.write(np.ascontiguousarray(image))
            start += step
    return RowFile(destination, shape, np.arange(len(files) - len(unreadable))), unreadable


def fitted(images: np.ndarray, size: int | None, mode: str | None) -> Iterator[np.ndarray]:
    """Yields blocks of the images in another size and mode, uint8 [block, channels, height, width].

    images: uint8 [n, height, width] or [n, height, width, channels].
    size, mode: None keeps the images' own.
    """
    own = "L" if images.ndim == 3 else "RGB"
    height, width = images.shape[1:3]
    change = (mode or own) != own or (size or height, size or width) != (height, width)
    step = _per_block((3, max(size or 0, height), max(size or 0, width)))
    for start in range(0, len(images), step):
        block = images[start : start + step]
        if change:
            pictures = (Image.fromarray(np.ascontiguousarray(image)) for image in block)
            resized = (square(picture, size) if size else picture for picture in pictures)
            block = np.stack([np.asarray(picture.convert(mode or own)) for picture in resized])
        yield block[:, None] if block.ndim == 3 else block.transpose(0, 3, 1, 2)


def stage_arrays(
    parts: Iterator[np.ndarray], size: int | None, mode: str | None, destination: Path
) -> RowFile:
    """Writes sets of images of one shape one after the other, resized by `fitted`. Only one set is
    in memory at a time.
    """
    shape, count = (), 0
    with destination.open("wb") as file:
        for images in parts:
            for block in fitted(images, size, mode):
                file.write(np.ascontiguousarray(block))
                shape, count = block.shape[1:], count + len(block)
    return RowFile(destination, shape, np.arange(count))
