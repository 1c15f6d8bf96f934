"""Floats of few bits, for the numbers beside weights: float16 with fewer fraction bits."""

import torch

# Numbers beside weights of a few bits need no more: neighbours are 1.6 to 3.1 % apart, and rounding
# moves a number by half of that at most.
FRACTION_BITS = 5
# A float16's, and its exponents as `torch.frexp` gives them.
MOST_FRACTION_BITS, LEAST_EXPONENT, MOST_EXPONENT = 10, -13, 16


def rounded(values: torch.Tensor, fraction_bits: int = FRACTION_BITS) -> torch.Tensor:
    """The nearest floats of so many fraction bits (1…10), as float32, ties to even.

    Larger ones become the largest, which is 64,512 for 5 bits. NaN stays NaN. As float16, the low
    10 − fraction_bits bits are zeros.
    """
    largest = 2.0**MOST_EXPONENT * (1 - 2.0 ** -(fraction_bits + 1))
    values = values.float().clamp(-largest, largest)
    exponent = torch.frexp(values).exponent.clamp(min=LEAST_EXPONENT)
    step = torch.ldexp(torch.ones_like(values), exponent - fraction_bits - 1)
    return (values / step).round() * step
