"""The image sources. Each returns all of its images, checked, as rows of uint8.

A new source is a function here that returns Images, its case in `read`, and its name in
core/params.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.lib.core.errors import printable
from stages.lib.core.paths import PARTS
from stages.lib.core.repository import person_path
from stages.lib.data import image_folder, splits, staging, torchvision_sets
from stages.lib.data.staging import RowFile

MODES = {"grey": "L", "rgb": "RGB"}


class Images(NamedTuple):
    """All images of a source.

    images: rows of uint8 [n, channels, height, width], 0 to 255.
    labels: int64 [n].
    classes: names, by label.
    parts: int [n], indices into PARTS: what is in the source's own validation or test set, and what
        is to be divided ("train").
    unreadable: the files that were left out, each with `file` and `reason`.
    notes: lines for the user.
    """

    images: RowFile
    labels: np.ndarray
    classes: list[str]
    parts: np.ndarray
    unreadable: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def digits() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images, labels and class names of 1,797 scans of handwritten digits, 8×8 grey pixels, part of
    scikit-learn.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998. The
    package stores levels 0 to 16, which are scaled to 0 to 255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return images, bunch.target.astype(np.int64), list(map(str, bunch.target_names))


def _sets(data: Any) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    if data.source == "digits":
        yield digits()
    else:
        for train in (True, False):
            yield torchvision_sets.load(data.source, person_path(data.root), train)


def public_set(data: Any, size: int | None, staged: Path) -> Images:
    """The digits, or a set of torchvision's. Errors are those of `torchvision_sets.load`."""
    labels, classes = [], []

    def loaded() -> Iterator[np.ndarray]:
        for images, own_labels, classes[:] in _sets(data):
            labels.append(own_labels)
            yield images

    images = staging.stage_arrays(loaded(), size, MODES.get(data.color), staged)
    # torchvision's sets have a test set.
    parts = [
        np.full(len(own), PARTS.index(part))
        for part, own in zip(("train", "test"), labels, strict=False)
    ]
    return Images(images, np.concatenate(labels), classes, np.concatenate(parts))


def files_below(root: Path, data: Any, size: int | None, staged: Path) -> Images:
    """The images in the folders below `root`. Raises the errors of `image_folder`."""
    listed = image_folder.list_images(root)
    # Find an impossible split now, not after decoding a million files.
    splits.parts(listed.labels, listed.parts, data, listed.classes)
    images, reasons = staging.decode_all(
        listed.root, listed.files, size, MODES.get(data.color, "RGB"), staged
    )
    unreadable = tuple(
        {"file": printable(listed.files[index]), "reason": printable(reason)}
        for index, reason in reasons.items()
    )
    readable = np.ones(len(listed.files), bool)
    readable[list(reasons)] = False
    image_folder.refuse_unreadable(listed, readable, unreadable, data.max_unreadable)
    notes = listed.notes
    if unreadable:
        lost = f"{len(unreadable)} of {len(readable)} files left out, as they cannot be read"
        notes = [*notes, f"data.root: {lost}:", *image_folder.described(unreadable)]
    labels, parts = listed.labels[readable], listed.parts[readable]
    return Images(images, labels, listed.classes, parts, unreadable, tuple(notes))


def read(data: Any, staged: Path) -> Images:
    """The images, size and colour that the params section `data` asks for.

    staged: a file to write, in which the returned images lie. Raises UserError if the images cannot
    be read.
    """
    size = None if data.image_size == "auto" else data.image_size
    root = person_path(data.root)
    if data.source in torchvision_sets.FOLDER_SETS:
        root = torchvision_sets.folder(data.source, root)
    elif data.source != "image_folder":
        return public_set(data, size, staged)
    return files_below(root, data, size, staged)
