"""How few bits integers need."""

import numpy as np

# Counting casts to 64 bits. It is done in pieces, so that a large tensor is never cast as a whole.
PIECE = 2**22


def histogram(values: np.ndarray) -> tuple[int, np.ndarray]:
    """How often each integer occurs in an array of any shape: the least integer, and the counts
    (int64) from that to the largest, also of those that do not occur; none for an empty array.

    Memory grows with the range of values, so symbols should have about 16 bits at most.
    """
    flat = values.reshape(-1)
    if not len(flat):
        return 0, np.zeros(0, dtype=np.int64)
    least, most = int(flat.min()), int(flat.max())
    counts = np.zeros(most - least + 1, dtype=np.int64)
    for start in range(0, len(flat), PIECE):
        piece = flat[start : start + PIECE].astype(np.int64) - least
        counts += np.bincount(piece, minlength=len(counts))
    return least, counts


def bound_bits(values: np.ndarray) -> float:
    """n · H: the least number of bits that an entropy coder needs for n integers, with the Shannon
    entropy of their histogram, H = −Σ p log2 p (Shannon, A Mathematical Theory of Communication,
    1948); 0 if all values are equal, or there are none.

    No code for independent symbols of one distribution needs fewer bits. The cost of describing the
    code is not included.
    """
    # scipy.stats.entropy computes the same; its import takes half a second of every process.
    _, counts = histogram(values)
    shares = counts[counts > 0] / max(values.size, 1)
    return values.size * abs(float((shares * np.log2(shares)).sum()))
