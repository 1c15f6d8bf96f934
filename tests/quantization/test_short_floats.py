"""Short floats: the nearest of what is left of float16."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.quantization import short_floats
from tests import toys

# All finite short floats: every float16 whose low bits are zero.
GRID = (torch.arange(0, 0x7C00, 2**5).to(torch.int16)).view(torch.float16).double()
LARGEST = 64512.0


@given(st.floats(-LARGEST, LARGEST, width=16))
@toys.few_examples
def test_the_nearest_is_found(value):
    found = float(short_floats.rounded(torch.tensor(value)))
    assert abs(found - value) == float((GRID - abs(value)).abs().min())
    assert found == 0 or (found > 0) == (value > 0)


@given(st.floats(-60000, 60000, width=16), st.integers(1, 10))
@toys.few_examples
def test_of_any_number_of_fraction_bits(value, fraction_bits):
    found = short_floats.rounded(torch.tensor([value]), fraction_bits)
    assert not int(found.half().view(torch.int16)) & (2 ** (10 - fraction_bits) - 1)
    step = max(abs(value), 2.0**-14) * 2.0 ** -(fraction_bits + 1)
    assert abs(float(found) - value) <= step or abs(value) > short_floats.rounded(
        torch.tensor(1e9), fraction_bits
    )


def test_all_that_are_short_stay():
    grid = torch.cat([GRID, -GRID]).float()
    assert torch.equal(short_floats.rounded(grid), grid)
    assert float(GRID.max()) == LARGEST


def test_ties_go_to_even():
    given = torch.tensor([1 + 1 / 64, 1 + 3 / 64, -1 - 1 / 64])
    assert short_floats.rounded(given).tolist() == [1, 1 + 4 / 64, -1]


@pytest.mark.parametrize("value", [65504.0, 1e9, float("inf")])
def test_what_is_too_large_becomes_the_largest(value):
    assert short_floats.rounded(torch.tensor([value, -value])).tolist() == [LARGEST, -LARGEST]


def test_not_a_number_stays_so():
    assert short_floats.rounded(torch.tensor(float("nan"))).isnan()
