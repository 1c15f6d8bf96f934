"""Short floats, for biases, norms and scales: float16 with fewer fraction bits."""

import torch

# Enough beside weights of a few bits: neighbouring floats are 3.1 to 6.3 % apart, and rounding
# moves a number by half of that at most.
FRACTION_BITS = 4
# The fraction bits of a float16, and its exponents as `torch.frexp` returns them.
MOST_FRACTION_BITS, LEAST_EXPONENT, MOST_EXPONENT = 10, -13, 16


def rounded(values: torch.Tensor, fraction_bits: int = FRACTION_BITS) -> torch.Tensor:
    """The nearest floats with `fraction_bits` (1…10), as float32; ties to even.

    Numbers beyond the largest become the largest, which is 63,488 for 4 bits. NaN stays NaN. As
    float16, the low 10 − fraction_bits bits are zeros.
    """
    largest = 2.0**MOST_EXPONENT * (1 - 2.0 ** -(fraction_bits + 1))
    values = values.float().clamp(-largest, largest)
    exponent = torch.frexp(values).exponent.clamp(min=LEAST_EXPONENT)
    step = torch.ldexp(torch.ones_like(values), exponent - fraction_bits - 1)
    return (values / step).round() * step
