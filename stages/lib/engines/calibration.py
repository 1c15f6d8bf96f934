"""The range of an activation that int8 covers, from its values on calibration images.

A wide range makes coarse steps, a narrow one cuts off the largest values. ONNX Runtime 1.32 has
these methods too. Measured on the ConvNet, its entropy with as many bins takes 70 times as long and
leaves 15 times the error in the logits (zeros of a ReLU outweigh all else); with its default of 128
bins it has one candidate, the whole range. Its histograms may grow with every batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# On each side of zero.
BINS = 2048
# Entropy: levels that a range is compared with, and how many bins a candidate is wider than the
# one before.
LEVELS = 128
STRIDE = 32
# Bins of a smaller bound cannot be told apart in float32.
LEAST_BOUND = 1e-30

Range = tuple[float, float]


class Observed(NamedTuple):
    """Values of one tensor: the least and the largest, and how many fell into each of 2 × BINS bins
    between −bound and bound, where bound is the largest magnitude.
    """

    low: float
    high: float
    counts: np.ndarray

    @property
    def bound(self) -> float:
        return max(abs(self.low), abs(self.high))


def histogram(values: np.ndarray, bound: float) -> np.ndarray:
    """How many of `values` (any shape) fall into each of 2 × BINS bins from −bound to bound."""
    bound = max(bound, LEAST_BOUND)
    return np.histogram(values, 2 * BINS, (-bound, bound))[0]


def percentile(observed: Observed, share: float) -> Range:
    """All but the outermost values: `share` (0…1) of them stay, the rest is cut off in equal parts
    at both ends.
    """
    cut = (1 - share) / 2 * observed.counts.sum()
    below = np.cumsum(observed.counts)
    width = observed.bound / BINS
    first = int(np.searchsorted(below, cut, side="right"))
    last = int(np.searchsorted(below, below[-1] - cut, side="left"))
    low, high = (first - BINS) * width, (last + 1 - BINS) * width
    return max(observed.low, low), min(observed.high, high)


def _divergence(inside: np.ndarray, outside: int) -> float:
    """Kullback-Leibler divergence of the clipped distribution from itself in LEVELS levels.

    inside: counts of the bins in a range; outside: of all others, which go into the last bin.
    """
    clipped = inside.astype(np.float64)
    clipped[-1] += outside
    starts = np.arange(LEVELS) * len(inside) // LEVELS
    filled = inside > 0
    level = np.add.reduceat(inside, starts) / np.maximum(
        np.add.reduceat(filled, starts, dtype=int), 1
    )
    spread = np.repeat(level, np.diff([*starts, len(inside)])) * filled
    if spread.sum() == 0:
        return np.inf
    # A bin that holds cut-off values alone has no counterpart.
    p, q = clipped / clipped.sum(), np.maximum(spread / spread.sum(), 1e-12)
    present = p > 0
    return float((p[present] * np.log(p[present] / q[present])).sum())


def entropy(observed: Observed) -> Range:
    """The range whose LEVELS levels lose the least information about the magnitudes (Migacz,
    "8-bit inference with TensorRT", 2017): of ever wider ones, that of least divergence.
    """
    magnitudes = observed.counts[BINS:] + observed.counts[:BINS][::-1]
    # The many exact zeros of a ReLU are exact in every range, and would outweigh all else.
    magnitudes[0] = magnitudes[1]
    total = magnitudes.sum()
    if total == 0:
        return observed.low, observed.high
    ends = np.arange(LEVELS, BINS + 1, STRIDE)
    losses = [_divergence(magnitudes[:end], int(total - magnitudes[:end].sum())) for end in ends]
    bound = float(ends[int(np.argmin(losses))]) * observed.bound / BINS
    return max(observed.low, -bound), min(observed.high, bound)


def method(name: str, percent: float) -> Callable[[Observed], Range]:
    """From what was observed of a tensor to its range.

    name: minmax (all values), entropy or percentile, which keeps `percent` percent of the values.
    """
    return {
        "minmax": lambda observed: (observed.low, observed.high),
        "entropy": entropy,
        "percentile": lambda observed: percentile(observed, percent / 100),
    }[name]
