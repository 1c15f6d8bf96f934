"""Reads one image file into a uint8 array, whatever its format, size and mode.

An image is turned upright by its EXIF tag, converted to 8 bits per channel, resized so that its
shorter side has the wanted size, cropped to the square in its centre, and laid on white if it is
transparent. Colour profiles are not applied. Of an animation, the first frame is used.
"""

import logging
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from stages.lib.core.errors import UserError, printable
from stages.lib.data import levels

SMALLEST, LARGEST = 8, 1024
# A decoded pixel and its copy in another mode take up to 8 bytes: half a gigabyte at most.
MOST_PIXELS = 2**26
# Pillow would hand PostScript to an interpreter.
_NEVER = {"EPS", "WMF"}
# Formats that Pillow reads with a plugin: how a file of it begins, and the package.
_PLUGINS = {
    "HEIC": (re.compile(rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL), "pillow-heif"),
    "JPEG XL": (re.compile(rb"\xff\x0a|\0{3}\x0cJXL ", re.DOTALL), "pillow-jxl-plugin"),
    "PostScript": (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), ""),
}

# Modes whose pixels cannot be interpolated, and the mode that they are converted to first.
_PLAIN = {
    "1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "HSV": "RGB",
    "YCbCr": "RGB",
}  # fmt: skip


class UnreadableError(Exception):
    """A file that cannot be read as an image. Its text is the reason."""


class _Budget:
    """Limits how many pixels all threads together decode at once."""

    def __init__(self, pixels: int) -> None:
        self._left = pixels
        self._changed = Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


_BUDGET = _Budget(MOST_PIXELS)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Prepares Pillow for decoding in threads, and suppresses its warnings meanwhile."""
    # A thread that finds this half done would take a known format for an unknown one.
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401  importing registers it
    log, limit = logging.getLogger("PIL"), Image.MAX_IMAGE_PIXELS
    level = log.level
    log.setLevel(logging.CRITICAL)
    Image.MAX_IMAGE_PIXELS = None  # MOST_PIXELS is checked instead
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        Image.MAX_IMAGE_PIXELS = limit


def eight_bits(image: Image.Image, about: levels.Declared) -> Image.Image:
    """The image in a mode with 8 bits per channel that can be resized: L, LA, RGB, RGBA or CMYK.

    about: what the file says of its numbers. Raises UnreadableError if their range is unknown.
    """
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        try:
            return levels.to_grey(image, about)
        except levels.UnknownRangeError as error:
            raise UnreadableError(str(error)) from None
    if mode in ("1", "L", "RGB") and about.key is not None:
        return levels.with_key(image, about.key)
    if mode in ("1", "L", "P", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    if mode == "L" and about.signed_bytes:
        return image.point(lambda level: level ^ 128)
    if mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    if mode not in _PLAIN:
        raise UnreadableError(f"pixels in mode {mode}, which cannot be brought to grey or RGB")
    return image.convert(_PLAIN[mode])


def square(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` pixels (bicubic, antialiased) and crops the centre."""
    if image.size == (size, size):
        return image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def to_array(image: Image.Image, mode: str) -> np.ndarray:
    """An 8-bit image as uint8 [1 or 3, height, width], for `mode` L or RGB. What is transparent
    becomes white.
    """
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    pixels = np.asarray(image.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _finished(image: Image.Image, size: int | None, mode: str) -> np.ndarray:
    about = levels.declared(image)
    image.load()
    # A broken EXIF block raises all kinds of errors, but the image may still be fine.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    plain = eight_bits(image, about)
    return to_array(plain if size is None else square(plain, size), mode)


def _identified(file: BinaryIO) -> Image.Image:
    formats = [name for name in Image.OPEN if name not in _NEVER]
    try:
        return Image.open(file, formats=formats)
    except Image.UnidentifiedImageError:
        file.seek(0)
        start = file.read(16)
        for name, (pattern, package) in _PLUGINS.items():
            if pattern.match(start):
                remedy = f"pip install {package}" if package else "it is a program, and not run"
                raise UnreadableError(f"{name}, which Pillow does not read: {remedy}") from None
        raise


def _open(path: Path, size: int | None, mode: str) -> np.ndarray:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("not a regular file")
    if status.st_size == 0:
        raise UnreadableError("an empty file")
    with path.open("rb") as file:
        image = _identified(file)
        if size is None and max(image.size) > LARGEST:
            raise UserError(
                f"data.image_size: auto, but {printable(str(path))} has"
                f" {image.width}×{image.height} pixels; allowed: at most {LARGEST} a side, or a"
                " number for data.image_size"
            )
        whole = image.width * image.height
        if size is not None:
            # A JPEG is decoded at an eighth, a quarter or half of its size if that is enough.
            image.draft(None, (2 * size, 2 * size))
        # A progressive JPEG is decoded at full size all the same.
        progressive = "progressive" in image.info
        pixels = whole if progressive else image.width * image.height
        if pixels > MOST_PIXELS:
            raise UnreadableError(
                f"{whole / 1e6:.0f} million pixels; at most {MOST_PIXELS / 1e6:.0f}"
            )
        if image.format == "PNG":
            # Its checksums tell damage that decodes without an error.
            image.verify()
            image = _identified(file)
        with _BUDGET.of(pixels):
            found = _finished(image, size, mode)
            del image  # before another thread may start on an image as large
            return found


def decode(path: Path, size: int | None, mode: str) -> np.ndarray:
    """The image in a file as uint8 [channels, height, width].

    size: side of the square in pixels; None keeps the image's own size.
    mode: L for one channel, RGB for three.

    Raises UnreadableError with the reason, and UserError if an image is too large to keep its size.
    """
    try:
        return _open(path, size, mode)
    except (UnreadableError, UserError):
        raise
    except Image.UnidentifiedImageError:
        raise UnreadableError("not an image, or in a format that Pillow does not read") from None
    except FileNotFoundError:
        raise UnreadableError(
            "a link that leads nowhere" if path.is_symlink() else "gone"
        ) from None
    except Exception as error:  # noqa: BLE001  a damaged file makes Pillow raise about anything
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UnreadableError(" ".join(reason.split()) or type(error).__name__) from None
