"""Where images come from: each source returns everything it has, checked, as uint8 arrays."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stages.lib.errors import UserError


class Images(NamedTuple):
    """images: uint8 [n, channels, height, width], 0 to 255; labels: int64 [n]; class names."""

    images: np.ndarray
    labels: np.ndarray
    classes: list[str]


def digits() -> Images:
    """1797 scans of handwritten digits, 8×8 grey, that ship inside scikit-learn.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998. The
    package stores levels 0 to 16; they are spread over 0 to 255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    levels, labels = bunch.images, bunch.target
    sound = levels.shape[1:] == (8, 8) and labels.shape == levels.shape[:1]
    if not (sound and levels.min() >= 0 and levels.max() <= 16 and set(labels) == set(range(10))):
        raise UserError(
            "data.source digits: the scikit-learn installed here ships other data than expected;"
            " reinstall it with `pip install --force-reinstall -r requirements.txt`"
        )
    images = np.rint(levels * (255 / 16)).astype(np.uint8)[:, None]
    return Images(images, labels.astype(np.int64), [str(digit) for digit in range(10)])


SOURCES: dict[str, Callable[[], Images]] = {"digits": digits}
