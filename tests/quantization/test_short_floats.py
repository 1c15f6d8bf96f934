"""Short floats: the nearest of what is left of float16."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.quantization import short_floats
from tests import toys

# All finite short floats: every float16 whose low bits are zero.
GRID = (torch.arange(0, 0x7C00, 2**6).to(torch.int16)).view(torch.float16).double()
LARGEST = 63488.0


@given(st.floats(-60000, 60000, width=16), st.integers(1, 10))
@toys.few_examples
def test_the_nearest_is_found(value, fraction_bits):
    rounded = short_floats.rounded(torch.tensor([value]), fraction_bits)
    assert not int(rounded.half().view(torch.int16)) & (2 ** (10 - fraction_bits) - 1)
    assert float(rounded) == 0 or (float(rounded) > 0) == (value > 0)
    step = max(abs(value), 2.0**-14) * 2.0 ** -(fraction_bits + 1)
    largest = short_floats.rounded(torch.tensor(1e9), fraction_bits)
    assert abs(float(rounded) - value) <= step or abs(value) > largest
    if fraction_bits == short_floats.FRACTION_BITS:
        assert abs(float(rounded) - value) == float((GRID - abs(value)).abs().min())


def test_all_that_are_short_stay_and_what_is_too_large_becomes_the_largest():
    grid = torch.cat([GRID, -GRID]).float()
    assert torch.equal(short_floats.rounded(grid), grid)
    large = torch.tensor([65504.0, float("inf"), -1e9, float("nan")])
    assert short_floats.rounded(large)[:3].tolist() == [LARGEST, LARGEST, -LARGEST]
    assert short_floats.rounded(large)[3].isnan()
