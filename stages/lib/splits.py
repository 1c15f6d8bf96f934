"""Splitting a labelled set into train, validation and test, stratified by class and seeded."""

import numpy as np
from sklearn.model_selection import train_test_split

from stages.lib.errors import UserError


def stratified(labels: np.ndarray, validation: int, test: int, seed: int) -> dict[str, np.ndarray]:
    """Indices of each part, ascending: exactly `validation` and `test` images, the rest for
    training.

    Each part holds every class in the proportion of the whole, to within two images. labels:
    int [n]. Raises UserError where a part would be smaller than the number of classes.
    """
    total, classes = len(labels), len(np.unique(labels))
    train = total - validation - test
    for key, size in (("validation_images", validation), ("test_images", test)):
        if size < classes:
            raise UserError(
                f"data.{key}: {size} is fewer than the {classes} classes; allowed: at least one"
                " image a class"
            )
    if train < classes:
        raise UserError(
            f"data.validation_images + data.test_images: {validation} + {test} of {total} images"
            f" leave {max(train, 0)} for training; allowed: at least one image of each of the"
            f" {classes} classes left"
        )
    everything = np.arange(total)
    try:
        rest, test_part = train_test_split(
            everything, test_size=test, stratify=labels, random_state=seed
        )
        train_part, validation_part = train_test_split(
            rest, test_size=validation, stratify=labels[rest], random_state=seed
        )
    except ValueError:
        fewest = np.unique(labels, return_counts=True)[1].min()
        raise UserError(
            f"data.validation_images, data.test_images: the rarest class has {fewest} images, too"
            " few to share out; allowed: smaller parts, or more images of that class"
        ) from None
    return {
        "train": np.sort(train_part),
        "validation": np.sort(validation_part),
        "test": np.sort(test_part),
    }
