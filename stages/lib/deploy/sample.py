"""Writes the sample of the folder: a photo, what a network must see of it, the right answers."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from stages.lib.core import outputs, paths
from stages.lib.deploy import predict

# The photo is this many times larger than the network's input, up to so many pixels, and this much
# wider.
ENLARGED, LARGEST, WIDER = 4, 1024, 1.5
# Turned by a quarter: a viewer turns it back.
ORIENTATION = 6
QUALITY = 95
# Images at a time.
BATCH = 10
# Two decoders of JPEG differ by a level or two.
LEVELS = 3
# Of the largest logit: sums in another order, in float32 and through roundings to int8.
FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-3, 5e-2


def photo(pixels: np.ndarray, file: Path) -> None:
    """Writes a JPEG file that `predict.pixels` makes about these pixels of, if it turns, resizes
    and crops it as it should. pixels: uint8 [channels, height, width].
    """
    channels, height, width = pixels.shape
    image = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    times = max(1, min(ENLARGED, LARGEST // max(height, width)))
    image = image.resize((times * width, times * height), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    more = round(array.shape[1] * (WIDER - 1) / 2)
    sides = [(0, 0), (more, more)] + [(0, 0)] * (array.ndim - 2)
    image = Image.fromarray(np.pad(array, sides, mode="edge"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = ORIENTATION
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.save(file, quality=QUALITY, subsampling=0, exif=exif)


def chosen(networks: Collection[predict.Network], images: np.ndarray, labels: np.ndarray) -> int:
    """The first image that every network gets right; else the first."""
    for start in range(0, len(images), BATCH):
        some = slice(start, start + BATCH)
        predicted = [network.logits(images[some]).argmax(1) for network in networks]
        right = np.all(predicted == labels[some], axis=0)
        if right.any():
            return start + int(right.argmax())
    return 0


def write(
    folder: Path, networks: Mapping[str, bool], images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Writes photo, pixels and answers into the folder. Returns what the answers' file holds.

    networks: for each ONNX file of the folder, whether it computes in integers.
    images, labels: uint8 [n, channels, height, width] and int64 [n], of which one is taken.
    """
    loaded = {name: predict.Network(folder / name) for name in networks}
    index = chosen(loaded.values(), images, labels)
    photo(images[index], folder / paths.SAMPLE_PHOTO)
    first = next(iter(loaded.values()))
    pixels = first.read(folder / paths.SAMPLE_PHOTO)
    shown = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    shown.save(folder / paths.SAMPLE_PIXELS)
    answers = {}
    for name, network in loaded.items():
        (logits,) = network.logits(pixels[None])
        share = INTEGER_TOLERANCE if networks[name] else FLOAT_TOLERANCE
        answers[name] = {
            "logits": [float(f"{value:.9g}") for value in logits],
            "tolerance": float(f"{share * max(1, np.abs(logits).max()):.3g}"),
        }
    about = {
        "photo": paths.SAMPLE_PHOTO,
        "pixels": paths.SAMPLE_PIXELS,
        "label": first.classes[labels[index]],
        "levels": LEVELS,
        "logits": answers,
    }
    outputs.write_json(folder / paths.SAMPLE, about)
    return about
