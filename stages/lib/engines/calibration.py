"""Which range of an activation int8 should cover: from its values on calibration images.

A wide range makes coarse steps, a narrow one cuts off the largest values.
"""

from typing import NamedTuple

import numpy as np

# On each side of zero.
BINS = 2048
# Entropy: levels that a range is compared with, and how many bins a candidate is wider than the
# one before.
LEVELS = 128
STRIDE = 32
# Less is nothing: float32 cannot hold what it would have to be multiplied by.
TINY = 1e-30


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
    if bound < TINY:
        return np.bincount([BINS], [values.size], 2 * BINS).astype(np.int64)
    index = ((values.ravel() + np.float32(bound)) * np.float32(BINS / bound)).astype(np.int32)
    return np.bincount(np.clip(index, 0, 2 * BINS - 1), minlength=2 * BINS)


def minmax(seen: Observed) -> tuple[float, float]:
    """All values: nothing is cut off."""
    return seen.low, seen.high


def percentile(seen: Observed, share: float) -> tuple[float, float]:
    """All but the outermost values: `share` (0…1) of them stay, the rest is cut off in equal parts
    at both ends.
    """
    cut = (1 - share) / 2 * seen.counts.sum()
    below = np.cumsum(seen.counts)
    width = seen.bound / BINS
    first = int(np.searchsorted(below, cut, side="right"))
    last = int(np.searchsorted(below, below[-1] - cut, side="left"))
    low, high = (first - BINS) * width, (last + 1 - BINS) * width
    return max(seen.low, float(low)), min(seen.high, float(high))


def _divergence(kept: np.ndarray, outside: int) -> float:
    """Kullback-Leibler divergence of the clipped distribution from itself in LEVELS levels."""
    clipped = kept.astype(np.float64)
    clipped[-1] += outside
    starts = np.arange(LEVELS) * len(kept) // LEVELS
    level = np.add.reduceat(kept, starts).astype(np.float64)
    filled = kept > 0
    members = np.add.reduceat(filled.astype(np.int64), starts)
    spread = np.repeat(level / np.maximum(members, 1), np.diff([*starts, len(kept)])) * filled
    total, total_spread = clipped.sum(), spread.sum()
    if total_spread == 0:
        return np.inf
    p, q = clipped / total, spread / total_spread
    there = p > 0
    # A bin that holds cut-off values alone has no counterpart.
    q = np.maximum(q, 1e-12)
    return float((p[there] * np.log(p[there] / q[there])).sum())


def entropy(seen: Observed) -> tuple[float, float]:
    """The range whose LEVELS levels lose the least information about the magnitudes (Migacz,
    "8-bit inference with TensorRT", 2017): of ever wider ones, that of least divergence.
    """
    magnitudes = seen.counts[BINS:] + seen.counts[:BINS][::-1]
    # The many exact zeros of a ReLU are exact in every range, and would outweigh all else.
    magnitudes[0] = magnitudes[1]
    total = magnitudes.sum()
    if total == 0:
        return minmax(seen)
    ends = np.arange(LEVELS, BINS + 1, STRIDE)
    inside = np.cumsum(magnitudes)
    losses = [_divergence(magnitudes[:end], int(total - inside[end - 1])) for end in ends]
    bound = float(ends[int(np.argmin(losses))]) * seen.bound / BINS
    return max(seen.low, -bound), min(seen.high, bound)
