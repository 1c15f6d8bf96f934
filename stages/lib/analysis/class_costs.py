"""What compression costs each class: accuracies, added confusions, images whose class changed."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.analysis import statistics

# Accuracy is much that of the large classes if they have more than this many times the images.
UNBALANCED = 2


class Predicted(NamedTuple):
    """The classes that a network gives: int64 [seeds, images] of each part."""

    validation: NDArray[np.int64]
    test: NDArray[np.int64]


class Change(NamedTuple):
    """An image to which two networks give different classes. index: of the image."""

    index: int
    label: int
    before: int
    after: int

    @property
    def kind(self) -> str:
        """lost (right before), won (right after) or neither."""
        if self.before == self.label:
            return "lost"
        return "won" if self.after == self.label else "neither"


def by_class(
    labels: NDArray[np.int64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    classes: int,
    confidence: float,
) -> pd.DataFrame:
    """A line for each class that has images: label, images, before and after (accuracies), low and
    high (the interval of after − before, paired by seed and image).

    labels: [images]; before, after: classes [seeds, images].
    """
    lines = []
    for label in range(classes):
        of_class = labels == label
        if not of_class.any():
            continue
        first, second = (found[:, of_class] == label for found in (before, after))
        change = statistics.difference(second, first, confidence)
        lines.append(
            (label, int(of_class.sum()), first.mean(), second.mean(), change.low, change.high)
        )
    return pd.DataFrame(lines, columns=["label", "images", "before", "after", "low", "high"])


def balanced(lines: pd.DataFrame) -> tuple[float, float] | None:
    """Balanced accuracy (the mean over classes, each counting alike) before and after, if the
    images of two classes differ by more than two to one; else None. lines: of `by_class`.
    """
    if lines.images.max() <= UNBALANCED * lines.images.min():
        return None
    return float(lines.before.mean()), float(lines.after.mean())


def confusions(
    labels: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64]
) -> pd.DataFrame:
    """The confusions that became more frequent, most added first: label, predicted, before after
    and added (images, means over seeds). labels: [images]; before, after: [seeds, images].
    """
    counts = []
    for found in (before, after):
        wrong = found != labels
        pairs = np.stack([np.broadcast_to(labels, found.shape)[wrong], found[wrong]])
        kinds, count = np.unique(pairs, axis=1, return_counts=True)
        seeds = len(found)
        counts.append(
            {tuple(kind): number / seeds for kind, number in zip(kinds.T, count, strict=True)}
        )
    lines = [
        (int(label), int(predicted), counts[0].get((label, predicted), 0.0), number)
        for (label, predicted), number in counts[1].items()
    ]
    lines = [(*line, line[3] - line[2]) for line in lines if line[3] > line[2]]
    lines.sort(key=lambda line: (-line[4], line[:2]))
    return pd.DataFrame(lines, columns=["label", "predicted", "before", "after", "added"])


def changed(
    labels: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64]
) -> list[Change]:
    """The images with another class after than before, lost ones first, then won ones.

    labels, before, after: classes [images], of one seed.
    """
    found = [
        Change(int(index), int(labels[index]), int(before[index]), int(after[index]))
        for index in np.flatnonzero(before != after)
    ]
    return sorted(found, key=lambda one: ("lost", "won", "neither").index(one.kind))
