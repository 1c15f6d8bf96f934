"""Splits a labelled set into train, validation and test, stratified by class and seeded."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.lib.core.errors import UserError


def _too_rare(labels: np.ndarray, keys: str, classes: Sequence[str] | None) -> UserError:
    found, counts = np.unique(labels, return_counts=True)
    rarest = int(np.argmin(counts))
    name = f"class {classes[found[rarest]]}" if classes else "the rarest class"
    noun = "image" if counts[rarest] == 1 else "images"
    return UserError(
        f"{keys}: {name} has {counts[rarest]} {noun}, too few to share"
        " out; allowed: smaller parts, or more images of that class"
    )


def _refuse_rare(labels: np.ndarray, least: int, keys: str, classes: Sequence[str] | None) -> None:
    if np.unique(labels, return_counts=True)[1].min() < least:
        raise _too_rare(labels, keys, classes)


def _drawn(pool: np.ndarray, labels: np.ndarray, size: int, seed: int) -> list[np.ndarray]:
    """Draws `size` of the indices `pool`: the rest, and those drawn. ValueError if impossible."""
    # Imported here: it takes 100 MiB, too much while torchvision's sets are read.
    from sklearn.model_selection import train_test_split

    return train_test_split(pool, test_size=size, stratify=labels[pool], random_state=seed)


def _sorted(
    parts: dict[str, np.ndarray], labels: np.ndarray, keys: str, classes: Sequence[str] | None
) -> dict[str, np.ndarray]:
    missing = np.setdiff1d(labels, labels[parts["train"]])
    if len(missing):
        raise _too_rare(labels[np.isin(labels, missing)], keys, classes)
    return {name: np.sort(index) for name, index in parts.items()}


def _refuse_small(key: str, size: int, classes: int) -> None:
    if size < classes:
        raise UserError(
            f"data.{key}: {size} is fewer than the {classes} classes; allowed: at least one"
            " image a class"
        )


def stratified(
    labels: np.ndarray, validation: int, test: int, seed: int, classes: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """The ascending indices of each part. Each part has every class in its overall proportion, to
    within two images.

    labels: int [n].
    validation, test: the exact number of images; the rest is for training.
    seed: decides which images are drawn.
    classes: names, for the errors.

    Raises UserError if a part would have fewer images than classes, or training would lack a class.
    """
    total, kinds = len(labels), len(np.unique(labels))
    train = total - validation - test
    _refuse_small("validation_images", validation, kinds)
    _refuse_small("test_images", test, kinds)
    if train < kinds:
        raise UserError(
            f"data.validation_images + data.test_images: {validation} + {test} of {total} images"
            f" leave {max(train, 0)} for training; allowed: at least one image of each of the"
            f" {kinds} classes left"
        )
    keys = "data.validation_images, data.test_images"
    _refuse_rare(labels, 3, keys, classes)
    try:
        rest, test_part = _drawn(np.arange(total), labels, test, seed)
        train_part, validation_part = _drawn(rest, labels, validation, seed)
    except ValueError:
        raise _too_rare(labels, keys, classes) from None
    parts = {"train": train_part, "validation": validation_part, "test": test_part}
    return _sorted(parts, labels, keys, classes)


def validation_alone(
    labels: np.ndarray, validation: int, seed: int, classes: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """As `stratified`, if the test part is given: the indices of train and validation."""
    total, kinds = len(labels), len(np.unique(labels))
    _refuse_small("validation_images", validation, kinds)
    if total - validation < kinds:
        raise UserError(
            f"data.validation_images: {validation} of {total} images for training and validation"
            f" leave {max(total - validation, 0)} for training; allowed: at least one image of"
            f" each of the {kinds} classes left"
        )
    _refuse_rare(labels, 2, "data.validation_images", classes)
    train_part, validation_part = _drawn(np.arange(total), labels, validation, seed)
    parts = {"train": train_part, "validation": validation_part}
    return _sorted(parts, labels, "data.validation_images", classes)


def parts(
    labels: np.ndarray, own_test: int, data: Any, classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """The indices of train, validation and test that the params section `data` asks for.

    own_test: the number of images, at the end, that are the source's own test set and become the
    test part; with 0, all three parts are drawn. Raises the errors of `stratified`.
    """
    if not own_test:
        return stratified(
            labels, data.validation_images, data.test_images, data.split_seed, classes
        )
    pool = len(labels) - own_test
    drawn = validation_alone(labels[:pool], data.validation_images, data.split_seed, classes)
    return {**drawn, "test": np.arange(pool, len(labels))}
