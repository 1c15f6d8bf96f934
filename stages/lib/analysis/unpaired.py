"""How far apart two runs are, where of each only its accuracies are known.

Two things make an accuracy wobble. Seeds: their spread is in the accuracies, one per seed. Images:
each accuracy is a share of n test images, binomial if they were drawn anew. Whether both runs erred
on the same images is not known, so their variances are added as if the images had been
drawn apart. On the same images two runs rise and fall together, which makes the true variance
smaller: the interval is conservative, and what it shows is there.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd
from scipy.special import stdtrit


class Share(NamedTuple):
    """An accuracy (0…1), mean over seeds, and the number of images it was measured on."""

    value: float
    images: int


class Term(NamedTuple):
    """One source's part of the variance of a difference, and its degrees of freedom."""

    variance: float
    freedom: int


def over_seeds(before: pd.Series, after: pd.Series) -> list[Term]:
    """What the seeds add. before, after: one value per seed, indexed by seed.

    Paired where both have the same seeds, Welch's two terms otherwise. A run of a single
    seed shows no spread of its own and is taken to have the other's; none where both are.
    """
    if set(before.index) == set(after.index):
        differences = after - before
        count = len(differences)
        return [Term(differences.var() / count, count - 1)] if count > 1 else []
    several = [values for values in (before, after) if len(values) > 1]
    if len(several) == 2:
        return [Term(values.var() / len(values), len(values) - 1) for values in several]
    return [
        Term(values.var() * (1 / len(before) + 1 / len(after)), len(values) - 1)
        for values in several
    ]


def over_images(share: Share) -> Term:
    """What the images add: p(1−p)/n, one success and one failure added so that no error in n is
    not certainty (Agresti & Caffo, The American Statistician 54, 2000).
    """
    adjusted = (share.value * share.images + 1) / (share.images + 2)
    return Term(adjusted * (1 - adjusted) / (share.images + 2), max(1, share.images - 1))


def interval(
    before: pd.Series, after: pd.Series, shares: Iterable[Share], confidence: float
) -> tuple[float, float]:
    """Bounds of mean(after) − mean(before), both indexed by seed.

    shares: the accuracies that the difference is made of. Student t, with Welch and
    Satterthwaite's degrees of freedom over all terms.
    """
    terms = [*over_seeds(before, after), *map(over_images, shares)]
    variance = sum(term.variance for term in terms)
    freedom = variance**2 / sum(term.variance**2 / term.freedom for term in terms)
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * variance**0.5
    estimate = after.mean() - before.mean()
    return float(estimate - half), float(estimate + half)
