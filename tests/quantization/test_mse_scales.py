"""Scales of the least squared error: no worse than those of the whole range, close to the best."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.quantization import linear, mse_scales, short_floats
from tests import toys


def squared_error(weight, scale, bits):
    codes = mse_scales.codes(weight, scale, bits)
    return float(((weight - codes * linear.along(scale, weight)) ** 2).sum())


@given(st.integers(2, 8), st.sampled_from(["tensor", "channel"]), st.integers(0, 1000))
@toys.few_examples
def test_the_scale_is_no_worse_than_that_of_the_whole_range(bits, granularity, seed):
    weight = toys.laplace(6, 5, 3, 3, seed=seed)
    scale = mse_scales.scales(weight, bits, granularity)
    whole = linear.quantize(weight, bits, "symmetric", granularity).S
    assert scale.shape == whole.shape
    # It is rounded to a short float, which may cost a little.
    assert squared_error(weight, scale, bits) <= 1.05 * squared_error(weight, whole, bits)
    assert torch.equal(short_floats.rounded(scale, mse_scales.fraction_bits(bits)), scale)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_rounded_scale_moves_the_largest_code_by_an_eighth_of_a_step_at_most(bits):
    scales = torch.linspace(0.01, 0.1, 1001)
    off = (short_floats.rounded(scales, mse_scales.fraction_bits(bits)) / scales - 1).abs().max()
    assert float(off) * linear.limits(bits, "symmetric")[1] <= 0.125


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_scale_is_close_to_the_best_of_a_fine_search(bits):
    weight = toys.laplace(1, 4000)
    whole = weight.abs().max() / linear.limits(bits, "symmetric")[1]
    best = min(squared_error(weight, whole * clip, bits) for clip in torch.linspace(0.02, 1, 300))
    scale = mse_scales.scales(weight, bits, "tensor")
    assert squared_error(weight, scale, bits) <= 1.03 * best


def test_weights_on_a_grid_are_quantized_exactly():
    codes = torch.randint(-3, 4, (4, 50), generator=torch.Generator().manual_seed(0)).float()
    codes[:, 0] = 3
    weight = codes * torch.tensor([0.5, 0.25, 2.0, 0.125])[:, None]
    assert torch.equal(linear.dequantize(mse_scales.quantize(weight, 3, "channel")), weight)


def test_zeros_stay_zeros_and_a_channel_of_zeros_has_scale_one():
    weight = toys.laplace(3, 20)
    weight[1] = 0
    weight[:, ::2] = 0
    quantized = mse_scales.quantize(weight, 4, "channel")
    assert quantized.S[1] == 1
    assert not quantized.Q[weight == 0].any()
    assert not quantized.Z.any()
