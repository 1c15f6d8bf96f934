"""Intervals of accuracies and of their differences, over seeds and test images together.

Seeds and images are crossed: each seed's network predicts every test image. The variance of the
mean is s²(means of the seeds)/k + s²(means of the images)/n. This counts the noise of one seed on
one image twice, and so is rather too large (Owen, The pigeonhole bootstrap, 2007).

The critical value is Cochran and Cox's (Experimental Designs, 1950): Student's t with the seeds'
degrees of freedom for the part that seeds explain, and the normal distribution's for the part that
images explain, weighted by the two variances. Welch and Satterthwaite's value is narrower, but if
two seeds differ much, its 95 % intervals held the truth in only 88 % of simulated runs.

If only the accuracies of another run are known, the images' part is that of independent samples. On
the same images the true variance is smaller, because both runs err on the same images; such an
interval is too wide rather than too narrow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special


@dataclass(frozen=True)
class Interval:
    """An interval. With one seed it is over images alone and says nothing about another training.

    estimate, low, high: shares (0.01: one percentage point).
    confidence: 0…1.
    seeds, images: their numbers.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    seeds: int
    images: int

    @property
    def sign(self) -> int:
        """1 if the whole interval lies above zero, -1 if below, else 0."""
        return (self.low > 0) - (self.high < 0)


def _checked(name: str, values: NDArray) -> NDArray[np.float64]:
    values = np.asarray(values)
    kinds = (np.dtype(np.bool_), np.dtype(np.float64))
    if values.dtype not in kinds or values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"{name}: {values.dtype} {list(values.shape)}; wanted: bool, or float64 from 0 to 1,"
            " [seeds, images], at least one of each"
        )
    values = values.astype(np.float64)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"{name}: values outside 0…1")
    return values


def _critical(confidence: float, freedom: float = math.inf) -> float:
    """The critical value of Student's t; of the normal distribution without `freedom`."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not between 0 and 1")
    # scipy.stats has both too; its import takes a second of every process.
    share = 0.5 + confidence / 2
    return float(special.ndtri(share) if freedom == math.inf else special.stdtrit(freedom, share))


class Term(NamedTuple):
    """A part of the variance and its degrees of freedom."""

    variance: float
    freedom: float = math.inf


def _half_width(terms: Sequence[Term], confidence: float) -> float:
    """The half-width of an interval, by Cochran and Cox's critical value."""
    total = sum(term.variance for term in terms)
    if total == 0:
        return 0.0
    critical = sum(term.variance * _critical(confidence, term.freedom) for term in terms)
    return critical / math.sqrt(total)


def _interval(
    values: NDArray[np.float64], ends: tuple[float, float], weight: float, confidence: float
) -> Interval:
    """The interval of the mean of `values` [seeds, images], each within `ends`.

    weight: the number of made-up images added at each end, because full agreement on a few images
        is not certainty.
    """
    seeds, images = values.shape
    count = images + 2 * weight
    of_image = values.mean(axis=0)
    centre = (of_image.sum() + weight * sum(ends)) / count
    square = (np.square(of_image).sum() + weight * sum(end**2 for end in ends)) / count
    terms = [Term((square - centre**2) / count)]
    if seeds > 1:
        terms.append(Term(values.mean(axis=1).var(ddof=1) / seeds, seeds - 1))
    half = _half_width(terms, confidence)
    estimate = float(values.mean())
    # The made-up images move the centre inwards; the interval still contains the estimate.
    low, high = min(centre - half, estimate), max(centre + half, estimate)
    return Interval(
        estimate, float(max(low, ends[0])), float(min(high, ends[1])), confidence, seeds, images
    )


def accuracy(correct: NDArray[np.bool_], confidence: float) -> Interval:
    """The interval of the mean accuracy, within [0, 1]. For one seed: Agresti and Coull's (1998).

    correct: bool [seeds, images], whether each seed's network is right on each image.

    ValueError for another dtype or shape, no images, or a confidence outside (0, 1).
    """
    weight = _critical(confidence) ** 2 / 2
    return _interval(_checked("correct", correct), (0.0, 1.0), weight, confidence)


def difference(one: NDArray, other: NDArray, confidence: float) -> Interval:
    """The interval of the mean difference one − other of two accuracies, paired by seed and image,
    within [−1, 1]. For one seed: Bonett and Price's adjusted Wald interval for paired proportions
    (2012).

    one, other: bool [seeds, images] of the same seeds and images in the same order, or float64 for
        means of several networks.

    ValueError if they do not fit, or as in `accuracy`.
    """
    first, second = _checked("one", one), _checked("other", other)
    if first.shape != second.shape:
        raise ValueError(f"{list(first.shape)} and {list(second.shape)} are not the same seeds")
    return _interval(first - second, (-1.0, 1.0), 1.0, confidence)


class Share(NamedTuple):
    """An accuracy (0…1), mean over seeds, and the number of its images."""

    value: float
    images: int

    def away(self, z: float) -> tuple[float, float]:
        """The distances to the lower and the upper end of Wilson's interval."""
        if not (0 <= self.value <= 1 and self.images > 0):
            raise ValueError(f"{self.value} of {self.images} is no accuracy")
        count = self.images + z**2
        centre = (self.value * self.images + z**2 / 2) / count
        spread = self.value * (1 - self.value) * self.images + z**2 / 4
        half = z * math.sqrt(spread) / count
        return max(0.0, self.value - centre + half), max(0.0, centre + half - self.value)


def over_seeds(one: Mapping[int, float], other: Mapping[int, float]) -> list[Term]:
    """The seeds' part of the variance of mean(one) − mean(other).

    one, other: a value per seed. They are paired if both have the same seeds; else each has a term.
        A run with a single seed is assumed to have the spread of the other; there is no term if
        both have a single seed.
    """
    first, second = list(one.values()), list(other.values())
    if set(one) == set(other):
        parts = [([one[seed] - other[seed] for seed in one], 1 / len(one))]
    elif 1 in (len(first), len(second)):
        parts = [(max(first, second, key=len), 1 / len(first) + 1 / len(second))]
    else:
        parts = [(values, 1 / len(values)) for values in (first, second)]
    return [
        Term(float(np.var(values, ddof=1)) * share, len(values) - 1)
        for values, share in parts
        if len(values) > 1
    ]


def unpaired(one: Share, other: Share, confidence: float, seeds: Sequence[Term] = ()) -> Interval:
    """The interval of the difference one − other, within [−1, 1], if only the accuracies are known,
    each as if of its own images. For one seed: Newcombe's interval (1998, method 10), which adds
    the squared distances to the ends of Wilson's intervals.

    seeds: of `over_seeds`.

    ValueError for an accuracy outside 0…1 or without images.
    """
    z = _critical(confidence)
    (below, above), (other_below, other_above) = one.away(z), other.away(z)
    down, up = (
        _half_width([Term((mine**2 + its**2) / z**2), *seeds], confidence)
        for mine, its in ((below, other_above), (above, other_below))
    )
    estimate = one.value - other.value
    low, high = max(estimate - down, -1.0), min(estimate + up, 1.0)
    return Interval(estimate, low, high, confidence, 1, min(one.images, other.images))


def at_chance(accuracy: float, chance: float, images: int) -> bool:
    """Whether an accuracy is no better than `chance` by two standard errors of guessing on `images`
    images.
    """
    return accuracy <= chance + 2 * math.sqrt(chance * (1 - chance) / images)
