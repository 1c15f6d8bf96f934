"""The image sources. Each returns all of its images, checked, as rows of uint8.

A new source is a function here that returns Images, its case in `read`, and its name in
core/params.py.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.lib.core.errors import UserError
from stages.lib.data import image_folder, listing, splits, staging, torchvision_sets
from stages.lib.data.row_file import RowFile

MODES = {"grey": "L", "rgb": "RGB"}


class Images(NamedTuple):
    """All images of a source.

    images: uint8 [n, channels, height, width], 0 to 255.
    labels: int64 [n].
    classes: names, by label.
    own_test: the number of images, at the end, that are the source's own test set.
    unreadable: the files that were left out, each with `file` and `reason`.
    notes: lines for the user.
    """

    images: np.ndarray | RowFile
    labels: np.ndarray
    classes: list[str]
    own_test: int = 0
    unreadable: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def digits() -> Images:
    """1,797 scans of handwritten digits, 8×8 grey pixels, part of scikit-learn.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998. The
    package stores levels 0 to 16, which are scaled to 0 to 255.
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


def public_set(source: str, root: Path, size: int | None, mode: str | None, staged: Path) -> Images:
    """One of torchvision's sets, its test set last. Errors are those of `torchvision_sets.load`."""
    labels, classes = [], []

    def parts():
        for train in (True, False):
            images, own_labels, names = torchvision_sets.load(source, root, train)
            labels.append(own_labels)
            classes[:] = names
            yield images

    images = staging.stage_arrays(parts(), size, mode, staged)
    return Images(images, np.concatenate(labels), classes, own_test=len(labels[1]))


def own_images(data: Any, staged: Path) -> Images:
    """The images in the folders below data.root. Raises the errors of `image_folder`."""
    root = listing.folder(data.root)
    listed = image_folder.list_images(root)
    # Find an impossible split now, not after decoding a million files.
    splits.parts(listed.labels, listed.own_test, data, listed.classes)
    size = None if data.image_size == "auto" else data.image_size
    images, reasons = staging.decode_all(
        root, listed.files, size, MODES.get(data.color, "RGB"), staged
    )
    image_folder.refuse_unreadable(listed, root, reasons, data.max_unreadable)
    notes = list(listed.notes)
    if reasons:
        notes.append(
            f"data.root: {len(reasons)} of {len(listed.files)} files left out, as they cannot be"
            " read:"
        )
        notes += image_folder.described(listed, reasons)
    is_readable = np.ones(len(listed.files), bool)
    is_readable[list(reasons)] = False
    unreadable = (
        {"file": listing.printable(listed.files[index]), "reason": listing.printable(reason)}
        for index, reason in sorted(reasons.items())
    )
    own_test = int(is_readable[len(is_readable) - listed.own_test :].sum())
    labels = listed.labels[is_readable]
    return Images(images, labels, listed.classes, own_test, tuple(unreadable), tuple(notes))


def read(data: Any, staged: Path) -> Images:
    """The images, size and colour that the params section `data` asks for.

    staged: a file to write; the returned images may lie in it. Raises UserError if the images
    cannot be read.
    """
    if data.source == "image_folder":
        return own_images(data, staged)
    size = None if data.image_size == "auto" else data.image_size
    mode = MODES.get(data.color)
    if data.source != "digits":
        return public_set(data.source, listing.folder(data.root), size, mode, staged)
    found = digits()
    return found._replace(
        images=staging.stage_arrays(iter([found.images[:, 0]]), size, mode, staged)
    )
