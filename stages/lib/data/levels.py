"""What the numbers of an image file mean: their range, which end is white, which colour is none."""

import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# TIFF 6.0, sections 8 and 19.
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339
_LEAST, _MOST, _SIGNED_LEAST, _SIGNED_MOST = 280, 281, 340, 341
_WHITE_IS_ZERO, _SIGNED, _FLOAT = 0, 2, 3


class UnknownRangeError(Exception):
    """The range of the numbers is not declared. Its text says which."""


class Declared(NamedTuple):
    """What a file says about its numbers, read before its pixels are.

    low, high: black and white; None if the file declares neither.
    inverted: whether the highest number is black, and Pillow leaves it so.
    signed_bytes: whether 8-bit numbers are signed, which Pillow does not know.
    key: the number, or the three numbers, of the colour that is transparent, as 8 bits; of 16-bit
        greys as 16.
    """

    low: float | None
    high: float | None
    inverted: bool = False
    signed_bytes: bool = False
    key: Any = None


def _number(tags: Any, *names: int) -> float | None:
    for name in names:
        value = tags.get(name)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    return None


def _of_tiff(tags: Any) -> Declared:
    bits, kind = int(_number(tags, _BITS) or 1), _number(tags, _FORMAT)
    low, high = _number(tags, _SIGNED_LEAST), _number(tags, _SIGNED_MOST)
    inverted = _number(tags, _PHOTOMETRIC) == _WHITE_IS_ZERO and bits > 8
    if low is not None and high is not None and low < high:
        return Declared(low, high, inverted, kind == _SIGNED and bits == 8)
    if kind == _FLOAT:
        return Declared(0, 1, inverted)
    if kind == _SIGNED:
        half = 2.0 ** (bits - 1)
        known = bits <= 16
        return Declared(-half if known else None, half - 1 if known else None, inverted, bits == 8)
    most = _number(tags, _MOST)
    if most is not None and 0 < most < 2**bits:
        # The greatest number that occurs: 12 of 16 bits are used up to 4095.
        bits = max(1, int(most).bit_length())
    elif bits > 16:
        return Declared(None, None, inverted)
    return Declared(0, 2.0**bits - 1, inverted)


def _of_png(image: Image.Image) -> Declared:
    key = image.info.get("transparency")
    raw = str(image.tile[0][3]) if image.tile else ""
    depth = int(raw.partition(";")[2][:2].rstrip("B") or 8) if ";" in raw else 8
    if image.mode == "1" and isinstance(key, int):
        key *= 255
    elif image.mode == "L" and isinstance(key, int):
        key = key * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(key, tuple) and depth == 16:
        # Pillow keeps the upper 8 of 16 bits.
        key = tuple(level >> 8 for level in key)
    return Declared(0, 2.0**16 - 1, key=key)


def declared(image: Image.Image) -> Declared:
    """What an opened file says, before its pixels are read."""
    if image.format == "TIFF":
        return _of_tiff(image.tag_v2)
    if image.format == "PNG":
        return _of_png(image)
    # Pillow scales PGM files with more than 8 bits to 16 bits.
    known = image.mode.startswith("I;16") or image.format == "PPM"
    return Declared(0, 2.0**16 - 1 if known else 1 if image.mode == "F" else None)


def to_grey(image: Image.Image, about: Declared) -> Image.Image:
    """An image of one channel with more than 8 bits, scaled from its range to 0…255, in mode L, or
    LA if a colour is transparent. Raises UnknownRangeError if the range is unknown or exceeded.
    """
    numbers = np.asarray(image)
    if about.low is None or about.high is None:
        raise UnknownRangeError("32-bit pixels, of which the range is not known")
    if not (numbers.min() >= about.low and numbers.max() <= about.high):
        what = "floating-point" if image.mode == "F" else "integer"
        raise UnknownRangeError(
            f"{what} pixels that are not all within {about.low:g}…{about.high:g}"
        )
    scale = 255 / (about.high - about.low)
    if image.mode == "F" or about.high - about.low >= 2**16:
        grey = np.rint((numbers.astype(np.float64) - about.low) * scale).astype(np.uint8)
    else:
        first = math.floor(about.low)
        levels = np.arange(first, math.floor(about.high) + 1)
        table = np.rint((levels - about.low) * scale).astype(np.uint8)
        grey = table[numbers if first == 0 else numbers - first]
    found = Image.fromarray(255 - grey if about.inverted else grey)
    if about.key is not None:
        found.putalpha(Image.fromarray(np.where(numbers == about.key, 0, 255).astype(np.uint8)))
    return found


def with_key(image: Image.Image, key: Any) -> Image.Image:
    """An 8-bit image, of mode 1, L or RGB, in which the colour `key` is transparent."""
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    same = pixels == np.asarray(key)
    if same.ndim == 3:
        same = same.all(axis=2)
    found = image.convert("RGBA")
    found.putalpha(Image.fromarray(np.where(same, 0, 255).astype(np.uint8)))
    return found
