"""Where images come from: each source gives everything it has, checked, as rows of uint8."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.lib.core.errors import UserError
from stages.lib.data import image_folder, listing, splits, staging, torchvision_sets
from stages.lib.data.row_file import RowFile

MODES = {"grey": "L", "rgb": "RGB"}


class Images(NamedTuple):
    """images: uint8 [n, channels, height, width], 0 to 255; labels: int64 [n]; class names.

    own_test: the last so many images are the source's own test set. unreadable: the files that
    were left out, with the reason. notes: lines that a person should see.
    """

    images: np.ndarray | RowFile
    labels: np.ndarray
    classes: list[str]
    own_test: int = 0
    unreadable: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()


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


def public_set(source: str, root: Path, size: int | None, mode: str | None, staged: Path) -> Images:
    """One of torchvision's sets; its own test set comes last. Errors as of `torchvision_sets`."""
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
    """The images in the folders below data.root. Errors as of `image_folder`."""
    root = listing.folder(data.root)
    listed = image_folder.list_images(root)
    # An impossible split is known now, not after decoding a million files.
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
    """The images that the params section `data` asks for, in the size and color it asks for.

    staged: a file that may be written; the images that are returned may lie in it. Raises
    UserError where they cannot be had.
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
