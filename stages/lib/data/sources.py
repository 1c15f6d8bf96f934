"""The image sources. Each returns all of its images, checked, as rows of uint8.

A new source is a function here that returns Images, its case in `read`, and its name in
core/params.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.lib.data import image_folder, listing, splits, staging, torchvision_sets
from stages.lib.data.staging import RowFile

MODES = {"grey": "L", "rgb": "RGB"}


class Images(NamedTuple):
    """All images of a source.

    images: rows of uint8 [n, channels, height, width], 0 to 255.
    labels: int64 [n].
    classes: names, by label.
    own_test: the number of images, at the end, that are the source's own test set.
    unreadable: the files that were left out, each with `file` and `reason`.
    notes: lines for the user.
    """

    images: RowFile
    labels: np.ndarray
    classes: list[str]
    own_test: int = 0
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
            yield torchvision_sets.load(data.source, listing.folder(data.root), train)


def public_set(data: Any, size: int | None, staged: Path) -> Images:
    """The digits, or one of torchvision's sets. Errors are those of `torchvision_sets.load`."""
    labels, classes = [], []

    def parts() -> Iterator[np.ndarray]:
        for images, own_labels, classes[:] in _sets(data):
            labels.append(own_labels)
            yield images

    images = staging.stage_arrays(parts(), size, MODES.get(data.color), staged)
    return Images(images, np.concatenate(labels), classes, own_test=sum(map(len, labels[1:])))


def own_images(data: Any, size: int | None, staged: Path) -> Images:
    """The images in the folders below data.root. Raises the errors of `image_folder`."""
    root = listing.folder(data.root)
    listed = image_folder.list_images(root)
    # Find an impossible split now, not after decoding a million files.
    splits.parts(listed.labels, listed.own_test, data, listed.classes)
    images, reasons = staging.decode_all(
        root, listed.files, size, MODES.get(data.color, "RGB"), staged
    )
    unreadable = tuple(
        {"file": listing.printable(listed.files[index]), "reason": listing.printable(reason)}
        for index, reason in reasons.items()
    )
    readable = np.ones(len(listed.files), bool)
    readable[list(reasons)] = False
    image_folder.refuse_unreadable(listed, root, readable, unreadable, data.max_unreadable)
    notes = listed.notes
    if unreadable:
        lost = f"{len(unreadable)} of {len(readable)} files left out, as they cannot be read"
        notes = [*notes, f"data.root: {lost}:", *image_folder.described(unreadable)]
    own_test = int(readable[len(readable) - listed.own_test :].sum())
    return Images(
        images, listed.labels[readable], listed.classes, own_test, unreadable, tuple(notes)
    )


def read(data: Any, staged: Path) -> Images:
    """The images, size and colour that the params section `data` asks for.

    staged: a file to write, in which the returned images lie. Raises UserError if the images cannot
    be read.
    """
    size = None if data.image_size == "auto" else data.image_size
    return (own_images if data.source == "image_folder" else public_set)(data, size, staged)
