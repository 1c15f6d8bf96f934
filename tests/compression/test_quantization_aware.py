import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from stages.lib.compression import (
    allocation,
    batch_norm,
    entropy_coding,
    quantization_aware,
    sensitivity,
)
from stages.lib.evaluation import inference
from stages.lib.models import prunable
from stages.lib.quantization import linear, mse_scales, short_floats
from stages.lib.training import loop
from tests import toys


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def laplace(*shape, seed=0):
    chances = torch.rand(shape, generator=generator(seed)) - 0.5
    return -chances.sign() * (1 - 2 * chances.abs()).clamp_min(1e-6).log() / 50


def squared_error(weight, scale, bits):
    codes = mse_scales.codes(weight, scale, bits)
    return float(((weight - codes * linear.along(scale, weight)) ** 2).sum())


@given(st.integers(2, 8), st.sampled_from(["tensor", "channel"]), st.integers(0, 1000))
@toys.few_examples
def test_the_scale_is_no_worse_than_that_of_the_whole_range(bits, granularity, seed):
    weight = laplace(6, 5, 3, 3, seed=seed)
    found = mse_scales.scales(weight, bits, granularity)
    whole = linear.quantize(weight, bits, "symmetric", granularity).S
    assert found.shape == whole.shape
    # Its scale is rounded to a short float, which may cost a little.
    assert squared_error(weight, found, bits) <= 1.05 * squared_error(weight, whole, bits)
    assert torch.equal(short_floats.rounded(found, mse_scales.fraction_bits(bits)), found)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_rounded_scale_moves_the_largest_code_by_an_eighth_of_a_step_at_most(bits):
    scales = torch.linspace(0.01, 0.1, 1001)
    off = (short_floats.rounded(scales, mse_scales.fraction_bits(bits)) / scales - 1).abs().max()
    assert float(off) * linear.limits(bits, "symmetric")[1] <= 0.125


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_scale_is_close_to_the_best_of_a_fine_search(bits):
    weight = laplace(1, 4000)
    tried = torch.linspace(0.02, 1, 1000) * weight.abs().max() / linear.limits(
        bits, "symmetric"
    )[1]  # fmt: skip
    best = min(squared_error(weight, scale, bits) for scale in tried)
    found = squared_error(weight, mse_scales.scales(weight, bits, "tensor"), bits)
    assert found <= 1.03 * best


def test_weights_on_a_grid_are_found_exactly():
    codes = torch.randint(-3, 4, (4, 50), generator=generator()).float()
    codes[:, 0] = 3
    scale = torch.tensor([0.5, 0.25, 2.0, 0.125])
    weight = codes * scale[:, None]
    found = mse_scales.quantize(weight, 3, "channel")
    assert torch.equal(linear.dequantize(found), weight)


def test_zeros_stay_zeros_and_a_channel_of_zeros_has_scale_one():
    weight = laplace(3, 20)
    weight[1] = 0
    weight[:, ::2] = 0
    found = mse_scales.quantize(weight, 4, "channel")
    assert found.S[1] == 1
    assert not found.Q[weight == 0].any()
    assert not found.Z.any()


@given(st.lists(st.integers(-7, 7), min_size=1, max_size=60))
def test_codes_take_their_entropy_and_a_table(values):
    shares = [values.count(one) / len(values) for one in set(values)]
    expected = -sum(share * math.log2(share) for share in shares)
    found = allocation.coded_bytes(torch.tensor(values))
    table = entropy_coding.ENTRY_BITS * len(set(values))
    assert found == pytest.approx((len(values) * expected + table) / 8, abs=1e-9)


def layers_of(seed, count=4):
    stream = generator(seed)
    return {
        f"layer{index}": allocation.choices(
            laplace(8, 40, seed=seed + index),
            torch.full((8, 40), float(torch.rand((), generator=stream)) * 10**index),
            (0.0, 0.5, 0.9),
            (2, 4),
            "channel",
        )
        for index in range(count)
    }


@given(st.integers(0, 50), st.floats(0.1, 1.0))
@toys.few_examples
def test_a_plan_keeps_its_budget_and_no_single_exchange_betters_it(seed, share):
    layers = layers_of(seed)
    least = sum(min(one.size for one in options) for options in layers.values())
    most = sum(max(one.size for one in options) for options in layers.values())
    budget = least + share * (most - least) + 1e-6
    plan = allocation.allocate(layers, budget)
    size, distortion = (
        sum(getattr(one, what) for one in plan.values()) for what in ("size", "distortion")
    )
    assert size <= budget
    for name, options in layers.items():
        for other in options:
            smaller = size - plan[name].size + other.size <= size
            assert not (
                smaller
                and distortion - plan[name].distortion + other.distortion < distortion * (1 - 1e-9)
            )


def test_a_layer_that_matters_more_gets_more_bytes():
    weight = laplace(8, 200)
    layers = {
        name: allocation.choices(
            weight, torch.full_like(weight, matters), allocation.SPARSITIES, (2, 3, 4), "channel"
        )
        for name, matters in (("much", 100.0), ("little", 1.0))
    }
    plan = allocation.allocate(layers, 200)
    assert plan["much"].size > plan["little"].size
    assert plan["much"].distortion < 100 * plan["little"].distortion


def test_a_budget_that_nothing_meets_gives_the_smallest():
    layers = layers_of(0)
    plan = allocation.allocate(layers, 0)
    for name, options in layers.items():
        assert plan[name].size == min(one.size for one in options)


def test_sensitivity_of_a_linear_network_is_its_mean_squared_input():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    given_samples = toys.halves(40)
    found = sensitivity.of_logits(model, given_samples, 40, generator())["1.weight"]
    inputs = given_samples.normalize(given_samples.images).flatten(1)
    # d logit_k / d w_kj = x_j, summed over a batch with random signs: the mean of squares.
    expected = (inputs**2).mean(0)
    many = torch.stack(
        [
            sensitivity.of_logits(model, given_samples, 40, generator(seed))["1.weight"]
            for seed in range(60)
        ]
    ).mean((0, 1))
    assert found.shape == (3, 64)
    torch.testing.assert_close(many, expected, rtol=0.2, atol=0.05)


def fit(model, scheme=None, epochs=4):
    return loop.fit(
        model,
        toys.data(),
        toys.recipe(),
        epochs=epochs,
        learning_rate=0.02,
        generator=generator(),
        scheme=scheme,
    )


def scheme_of(model, sparsity=0.8, bits=3):
    plan = {name: allocation.Choice(sparsity, bits, 0, 0) for name in prunable.weights(model)}
    return quantization_aware.QuantizationAware(
        lambda weights: plan, dict.fromkeys(plan, 0.0), "channel"
    )


def test_what_was_trained_is_what_is_quantized():
    model = toys.lived_in(toys.convnet())
    scheme = scheme_of(model)
    trained, curve = fit(model, scheme)
    quantized = scheme.quantized(trained)
    network = linear.with_weights(trained, quantized)
    assert curve[-1].validation_accuracy == inference.accuracy(network, toys.data().validation)
    inputs = toys.noise(5)
    with torch.no_grad():
        torch.testing.assert_close(scheme.logits(trained, inputs), network(inputs))
    for name, parts in quantized.items():
        assert parts.Q.abs().max() <= 3
        removed = round(0.8 * parts.Q.numel())
        assert int((parts.Q == 0).sum()) >= removed, name


def test_the_gradient_passes_rounding_and_stops_at_pruned_weights():
    model = toys.lived_in(toys.convnet())
    scheme = scheme_of(model, sparsity=0.5)
    scheme.before_step(model, 0.9)
    logits = scheme.logits(model, toys.noise(6))
    loss = functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2]))
    names = list(scheme.plan)
    found = torch.autograd.grad(loss, [model.get_parameter(name) for name in names])
    for name, gradient in zip(names, found, strict=True):
        assert not gradient[scheme.masks[name] == 0].any()
    assert any(bool(gradient.any()) for gradient in found)


def test_sparsity_rises_and_masks_stand_still_at_the_end():
    model = toys.lived_in(toys.convnet())
    scheme = scheme_of(model, sparsity=0.9)
    kept = []
    for progress in (0.0, 0.1, 0.3, 0.5, 0.8):
        scheme.before_step(model, progress)
        kept.append(sum(int(mask.sum()) for mask in scheme.masks.values()))
    assert kept == sorted(kept, reverse=True)
    before = {name: mask.clone() for name, mask in scheme.masks.items()}
    with torch.no_grad():
        for name in before:
            model.get_parameter(name).add_(1.0)
    scheme.before_step(model, 0.9)
    assert all(torch.equal(scheme.masks[name], mask) for name, mask in before.items())


def test_norms_taken_anew_are_those_of_the_batches():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.9)).eval()
    before = copy.deepcopy(model.state_dict())
    batches = list(toys.noise(40).split(10))
    found = batch_norm.recalibrated(model, batches)
    with torch.no_grad():
        outputs = [model[0](batch) for batch in batches]
    means = torch.stack([one.mean((0, 2, 3)) for one in outputs]).mean(0)
    variances = torch.stack([one.var((0, 2, 3)) for one in outputs]).mean(0)
    torch.testing.assert_close(found[1].running_mean, means)
    torch.testing.assert_close(found[1].running_var, variances)
    assert not found.training
    assert found[1].momentum == 0.1
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
