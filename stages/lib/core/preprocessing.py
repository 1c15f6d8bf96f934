"""How a photo becomes the input of a network, in words and numbers for files that are handed over.

data/decoding.py does it for the pipeline, deploy/predict.py for those who get the files.
"""

from collections.abc import Sequence
from typing import Any


def describe(image_shape: Sequence[int]) -> dict[str, Any]:
    """The steps in their order, for JSON. image_shape: (channels, height, width)."""
    channels, height, width = image_shape
    return {
        "orientation": "turned upright by the EXIF tag",
        "resize": "bicubic, antialiased (Pillow), until the image covers height and width",
        "crop": "centre",
        "background": "white where the image is transparent",
        "mode": "L" if channels == 1 else "RGB",
        "height": height,
        "width": width,
        "layout": "uint8 [n, channels, height, width], 0 to 255",
        "channels": "grey" if channels == 1 else "red, green, blue",
    }
