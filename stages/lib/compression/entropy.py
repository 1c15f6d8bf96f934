"""How few bits integers need: formulas to compare real files with."""

from typing import NamedTuple

import numpy as np

# Counting casts to 64 bits. It is done in pieces, so that a large tensor is never cast as a whole.
PIECE = 2**22


class Histogram(NamedTuple):
    """counts: int64, one for each integer from `least` to the largest value, also for those that do
    not occur; empty for an empty array.
    """

    least: int
    counts: np.ndarray


def histogram(values: np.ndarray) -> Histogram:
    """How often each integer occurs in an array of any shape. Memory grows with the range of
    values, so symbols should have about 16 bits at most.
    """
    flat = values.reshape(-1)
    if not len(flat):
        return Histogram(0, np.zeros(0, dtype=np.int64))
    least, most = int(flat.min()), int(flat.max())
    counts = np.zeros(most - least + 1, dtype=np.int64)
    for start in range(0, len(flat), PIECE):
        piece = flat[start : start + PIECE].astype(np.int64) - least
        counts += np.bincount(piece, minlength=len(counts))
    return Histogram(least, counts)


def of_values(values: np.ndarray) -> float:
    """The Shannon entropy of an integer array's histogram: H = −Σ p log2 p bits per symbol
    (Shannon, A Mathematical Theory of Communication, 1948); 0 if all values are equal, or there are
    none.

    No code for independent symbols of one distribution needs fewer bits. The cost of describing the
    code is not included.
    """
    # scipy.stats.entropy computes the same; its import takes half a second of every process.
    _, counts = histogram(values)
    shares = counts[counts > 0] / max(values.size, 1)
    return abs(float((shares * np.log2(shares)).sum()))


def bound_bits(values: np.ndarray) -> float:
    """n · H: the least number of bits that an entropy coder needs for n integers."""
    return values.size * of_values(values)


def nonzero_bits(values: np.ndarray, value_bits: int) -> int:
    """`value_bits` for each nonzero value: the size if positions took no space."""
    return int(np.count_nonzero(values)) * value_bits


def index_value_bits(values: np.ndarray, value_bits: int) -> int:
    """`value_bits` and a position of ⌈log2 n⌉ bits for each nonzero (coordinate format)."""
    index_bits = max(values.size - 1, 0).bit_length()
    return int(np.count_nonzero(values)) * (value_bits + index_bits)
