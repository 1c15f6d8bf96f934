"""Splits a labelled set into train, validation and test, stratified by class and seeded."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from stages.lib.core.errors import UserError
from stages.lib.core.paths import PARTS


def stratified(
    labels: np.ndarray, sizes: Mapping[str, int], seed: int, classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """The ascending indices of each part. Each part has every class in its overall proportion, to
    within two images.

    labels: int [n].
    sizes: the exact number of images of each part to draw, in the order of drawing; the rest is the
        part "train".
    seed: decides which images are drawn.
    classes: names by label, for the errors.

    Raises UserError if a part would have fewer images than classes, or training would lack a class.
    """
    # Imported here: it takes 100 MiB, too much while torchvision's sets are read.
    from sklearn.model_selection import train_test_split

    there, counts = np.unique(labels, return_counts=True)
    keys = ", ".join(f"data.{name}_images" for name in sizes)
    for name, size in sizes.items():
        if size < len(counts):
            raise UserError(
                f"data.{name}_images: {size} is fewer than the {len(counts)} classes; allowed: at"
                " least one image a class"
            )
    left = len(labels) - sum(sizes.values())
    if left < len(counts):
        raise UserError(
            f"{keys}: {' + '.join(map(str, sizes.values()))} of {len(labels)} images leave"
            f" {max(left, 0)} for training; allowed: at least one image of each of the"
            f" {len(counts)} classes left"
        )
    parts, rest = {}, np.arange(len(labels))
    with suppress(ValueError):  # of a class with too few images
        for name, size in sizes.items():
            rest, part = train_test_split(
                rest, test_size=size, stratify=labels[rest], random_state=seed
            )
            parts[name] = np.sort(part)
    drawn = len(parts) == len(sizes) and len(np.unique(labels[rest])) == len(counts)
    if not drawn or counts.min() <= len(sizes):
        rarest = int(np.argmin(counts))
        noun = "image" if counts[rarest] == 1 else "images"
        raise UserError(
            f"{keys}: class {classes[there[rarest]]} has {counts[rarest]} {noun}, too few to share"
            " out; allowed: smaller parts, or more images of that class"
        )
    return {"train": np.sort(rest), **parts}


def parts(
    labels: np.ndarray, own: np.ndarray, data: Any, classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """The indices of train, validation and test that the params section `data` asks for.

    own: int [n], indices into PARTS. Images of the source's own validation and test set stay there;
    a part that it has none of is drawn from its training images. Where all of these are drawn, or
    there are none, "train" has the validation images. Raises the errors of `stratified`.
    """
    given = {name: np.flatnonzero(own == index) for index, name in enumerate(PARTS)}
    pool = given["train"]
    wanted = {"test": data.test_images, "validation": data.validation_images}
    sizes = {name: size for name, size in wanted.items() if not len(given[name])}
    if sizes and sum(sizes.values()) == len(pool):
        last = list(sizes)[-1]
        del sizes[last]
        drawn = stratified(labels[pool], sizes, data.split_seed, classes)
        drawn |= {last: drawn["train"], "train": drawn["train"][:0]}
    elif len(pool):
        drawn = stratified(labels[pool], sizes, data.split_seed, classes)
    else:
        drawn = {}
    found = given | {name: pool[index] for name, index in drawn.items()}
    return found if len(found["train"]) else found | {"train": found["validation"]}
