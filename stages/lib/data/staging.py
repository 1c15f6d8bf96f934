"""Writes images from any source into a file of uint8 rows of one shape, a block at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from stages.lib.core import hardware
from stages.lib.core.errors import UserError
from stages.lib.data import row_file
from stages.lib.data.decoding import (
    LARGEST,
    SMALLEST,
    UnreadableError,
    decode,
    quiet_pillow,
    square,
)
from stages.lib.data.listing import printable
from stages.lib.data.row_file import RowFile

# Pillow decodes without Python's lock, but the code around it needs it: more threads do not help.
_MOST_THREADS = 16
# The most files that a thread takes at once.
_BITE = 8
# Enough work for all threads, even with the largest images.
_BLOCK_BYTES = 64 * 2**20


def _own_shape(root: Path, files: Sequence[str], mode: str) -> tuple[int, ...]:
    """(channels, height, width) of the first file that can be read."""
    for name in files:
        try:
            shape = decode(root / name, None, mode).shape
        except UnreadableError:
            continue
        if min(shape[1:]) < SMALLEST:
            raise UserError(
                f"data.image_size: auto, but {printable(name)} has {shape[2]}×{shape[1]} pixels;"
                f" allowed: at least {SMALLEST} a side, or a number for data.image_size"
            )
        return shape
    return (len(mode), SMALLEST, SMALLEST)


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
    with quiet_pillow():
        shape = _own_shape(root, files, mode) if size is None else (len(mode), size, size)
        block = np.empty(
            (min(row_file.per_block(shape, _BLOCK_BYTES), len(files)), *shape), np.uint8
        )
        unreadable: dict[int, str] = {}
        count = 0

        def fill(start: int, bite: range) -> list[tuple[int, str]]:
            """Decodes the files `bite` into the block whose first file is `start`."""
            failed = []
            for index in bite:
                try:
                    image = decode(root / files[index], size, mode)
                except UnreadableError as error:
                    failed.append((index, str(error)))
                    continue
                if image.shape != shape:
                    raise UserError(
                        f"data.image_size: auto, but the images differ: {printable(files[index])}"
                        f" has {image.shape[2]}×{image.shape[1]} pixels, the first"
                        f" {shape[2]}×{shape[1]}; set data.image_size to a number, such as"
                        f" {max(SMALLEST, min(LARGEST, *shape[1:]))}"
                    )
                block[index - start] = image
            return failed

        threads = min(hardware.cores(), _MOST_THREADS)
        step = max(1, min(_BITE, len(block) // (2 * threads)))
        with (
            destination.open("wb") as file,
            ThreadPoolExecutor(threads) as pool,
            tqdm(total=len(files), desc="decoding", unit="file", disable=None, leave=False) as bar,
        ):
            try:
                for start in range(0, len(files), len(block)):
                    end = min(start + len(block), len(files))
                    bites = [range(i, min(i + step, end)) for i in range(start, end, step)]
                    readable = np.ones(end - start, bool)
                    failures = pool.map(fill, [start] * len(bites), bites)
                    for bite, failed in zip(bites, failures, strict=True):
                        unreadable.update(failed)
                        readable[[index - start for index, _ in failed]] = False
                        bar.update(len(bite))
                    row_file.append(file, block[: end - start][readable])
                    count += int(readable.sum())
            except BaseException:  # Ctrl-C too: do not wait for files that are no longer wanted
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return RowFile(destination, (count, *shape)), unreadable


def fitted(images: np.ndarray, size: int | None, mode: str | None) -> Iterator[np.ndarray]:
    """Yields blocks of the images in another size and mode, uint8 [block, channels, height, width].

    images: uint8 [n, height, width] or [n, height, width, channels].
    size, mode: None keeps the images' own.
    """
    own = "L" if images.ndim == 3 else "RGB"
    wanted = (len(mode or own), size or images.shape[1], size or images.shape[2])
    change = wanted != (len(own), *images.shape[1:3])
    step = row_file.per_block(
        (max(len(own), wanted[0]), *np.maximum(wanted[1:], images.shape[1:3]))
    )
    for start in range(0, len(images), step):
        block = images[start : start + step]
        if change:
            pictures = (Image.fromarray(np.ascontiguousarray(one)) for one in block)
            resized = (square(one, size) if size else one for one in pictures)
            block = np.stack([np.asarray(one.convert(mode or own)) for one in resized])
        yield block[:, None] if block.ndim == 3 else block.transpose(0, 3, 1, 2)


def stage_arrays(
    sets: Iterator[np.ndarray], size: int | None, mode: str | None, destination: Path
) -> RowFile:
    """Writes sets of images of one shape one after the other, resized by `fitted`. Only one set is
    in memory at a time.
    """
    shape, count = None, 0
    with destination.open("wb") as file:
        for images in sets:
            for block in fitted(images, size, mode):
                row_file.append(file, block)
                shape, count = block.shape[1:], count + len(block)
    return RowFile(destination, (count, *shape))
