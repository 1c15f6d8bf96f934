"""The rate of quantized weights: how many bits their codes need, and how it changes.

W: weights; s: the step of a layer; x = W / s; q = round(x), the code of a weight.
"""

import math
from collections.abc import Callable

import torch

from stages.lib.compression.flat_weights import FlatWeights

# Codes are int8.
LARGEST = 127
CODES = 2 * LARGEST + 1
# A rate is held to this share below its target.
TOLERANCE = 1e-3
# log s moves by this much first when a rate is to be met.
FIRST_SHIFT = 0.02
# No step is searched further away than this in log s.
FURTHEST = 20.0
# The share of a training in which the rate falls.
RAMP = 0.6


def codes(x: torch.Tensor) -> torch.Tensor:
    """q = round(x), at most ±LARGEST."""
    return x.round().clamp(-LARGEST, LARGEST)


def histogram(q: torch.Tensor, flat: FlatWeights) -> torch.Tensor:
    """How often each layer has each code, −LARGEST first: int64 [layers, CODES].

    q: the codes of all layers, a matrix of `flat`.
    """
    symbols = q.to(torch.int64) + (flat.layers[:, None] * CODES + LARGEST)
    counts = symbols.flatten().bincount(minlength=len(flat.names) * CODES)
    counts = counts.view(-1, CODES)
    counts[:, LARGEST] -= flat.padding
    return counts


def entropy(counts: torch.Tensor) -> torch.Tensor:
    """Σ n · H in bits, a scalar, of the counts [layers, codes] of each layer's codes, where H is
    the Shannon entropy of a layer's histogram and n its number of codes.
    """
    counts = counts.double()
    totals = counts.sum(1)
    nats = torch.xlogy(totals, totals).sum() - torch.xlogy(counts, counts).sum()
    return nats / math.log(2)


def slope(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """dR/dx, where R(x) = −log2 P(|x| − ½ … |x| + ½) is what x costs in bits if x follows a Laplace
    distribution with this scale, the mean of |x|. Up to ½ it rises smoothly from 0; beyond, it is
    1 / (scale · ln 2).

    With a = |x| and b = scale, P = e^(−a/b) · sinh(1/2b) for a ≥ ½, and
    P = 1 − e^(−1/2b) · cosh(a/b) below.
    """
    inside = x.abs().clamp_max(0.5)
    near, far = torch.exp((inside - 0.5) / scale), torch.exp(-(inside + 0.5) / scale)
    return x.sign() * (near - far) / (2 - near - far) / (scale * math.log(2))


def shift_for(bits_at: Callable[[float], float], target: float) -> float:
    """By how much all log s must move for the codes to need `target` bits: at most that, and less
    by TOLERANCE at most where codes allow it.

    bits_at: the bits after a shift; they fall as it rises.
    """

    def excess(shift: float) -> float:
        return math.log(max(bits_at(shift), 1e-9) / target)

    low = high = 0.0
    above = below = excess(0.0)
    width = FIRST_SHIFT
    while below > 0 and high < FURTHEST:
        low, above = high, below
        high += width
        below, width = excess(high), 2 * width
    while above <= -TOLERANCE and low > -FURTHEST:
        found = excess(low - width)
        if found < above - TOLERANCE:
            # The codes are at their limit: finer steps need fewer bits.
            return low
        high, below = low, above
        low, above, width = low - width, found, 2 * width
    while not -TOLERANCE <= below <= 0 and high - low > 1e-5:
        # Between the two ends where a straight line meets the target, but not too near to either.
        share = min(max(above / (above - below), 0.1), 0.9) if above > below else 0.5
        middle = low + share * (high - low)
        found = excess(middle)
        if found > 0:
            low, above = middle, found
        else:
            high, below = middle, found
    return high


def falling(progress: float, first: float, last: float) -> float:
    """The target rate after a share `progress` (0…1) of a training: from `first` to `last`, along a
    square of the logarithm, in the first RAMP of it; then `last` to the end.
    """
    share = (1 - min(1.0, progress / RAMP)) ** 2
    return last ** (1 - share) * first**share
