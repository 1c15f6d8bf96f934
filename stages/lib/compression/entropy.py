"""How few bits integers can be stored in: closed forms to hold real files against."""

from typing import NamedTuple

import numpy as np

# Counting casts to 64 bits: in pieces, so that a large tensor is never held so wide.
PIECE = 2**22


class Histogram(NamedTuple):
    """counts: int64 [values from `least` to the largest, those between that do not occur
    included]; empty for an empty array.
    """

    least: int
    counts: np.ndarray


def histogram(values: np.ndarray) -> Histogram:
    """How often each integer occurs in an array of any shape. The range from the least to the
    largest is held in memory: for symbols of up to 16 bits or so.
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
    """Shannon entropy of an integer array's histogram: H = −Σ p log2 p bits a symbol (Shannon, A
    Mathematical Theory of Communication, 1948), 0 where all are equal, or there are none.

    No code that treats the symbols alike and independent needs fewer bits; what the code itself
    costs is not counted.
    """
    # scipy.stats.entropy computes the same; its import takes half a second of every process.
    _, counts = histogram(values)
    shares = counts[counts > 0] / max(values.size, 1)
    return abs(float((shares * np.log2(shares)).sum()))


def bound_bits(values: np.ndarray) -> float:
    """n · H: the bits that an entropy coder needs at least for n integers."""
    return values.size * of_values(values)


def nonzero_bits(values: np.ndarray, value_bits: int) -> int:
    """`value_bits` for each nonzero: what a file would take if positions were free."""
    return int(np.count_nonzero(values)) * value_bits


def index_value_bits(values: np.ndarray, value_bits: int) -> int:
    """`value_bits` and a position of ⌈log2 n⌉ bits for each nonzero (coordinate format)."""
    index_bits = max(values.size - 1, 0).bit_length()
    return int(np.count_nonzero(values)) * (value_bits + index_bits)
