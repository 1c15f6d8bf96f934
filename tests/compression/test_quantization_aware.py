"""Training under a budget of bytes: what each layer gets, how it is trained, what comes out."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from stages.lib.compression import (
    allocation,
    entropy_coding,
    packed,
    quantization_aware,
    sensitivity,
    size_targets,
)
from stages.lib.evaluation import inference
from stages.lib.models import checkpoints, prunable
from stages.lib.quantization import linear
from stages.lib.training import loop
from tests import toys


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(-7, 7), min_size=1, max_size=60))
@toys.few_examples
def test_codes_take_their_entropy_and_a_table(values):
    shares = [values.count(value) / len(values) for value in set(values)]
    entropy = -sum(share * math.log2(share) for share in shares)
    table = entropy_coding.ENTRY_BITS * len(set(values))
    expected = (len(values) * entropy + table) / 8
    assert allocation.coded_bytes(torch.tensor(values)) == pytest.approx(expected, abs=1e-9)


def layers_of(seed, count=4):
    """Choices of layers whose sensitivities are powers of ten apart."""
    return {
        f"layer{index}": allocation.choices(
            toys.laplace(8, 40, seed=seed + index),
            torch.full((8, 40), (0.1 + seed % 7) * 10**index),
            (0.0, 0.5, 0.9),
            (2, 4),
            "channel",
        )
        for index in range(count)
    }


@given(st.integers(0, 50), st.floats(0.1, 1.0))
@toys.fewer_examples
def test_a_plan_keeps_its_budget_and_no_single_exchange_betters_it(seed, share):
    layers = layers_of(seed)
    least = sum(min(option.size for option in options) for options in layers.values())
    most = sum(max(option.size for option in options) for options in layers.values())
    budget = least + share * (most - least) + 1e-6
    plan = allocation.allocate(layers, budget)
    assert allocation.size_of(plan) <= budget
    total = sum(choice.distortion for choice in plan.values())
    for name, options in layers.items():
        for option in options:
            gain = plan[name].distortion - option.distortion
            assert option.size > plan[name].size or gain <= total * 1e-9


def test_a_layer_that_matters_more_gets_more_bytes():
    weight = toys.laplace(8, 200)
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
        assert plan[name].size == min(option.size for option in options)


def test_sensitivity_of_a_linear_network_is_its_mean_squared_input():
    model, samples = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), toys.halves(40)
    runs = [
        sensitivity.of_logits(model, samples, 40, generator(seed))["1.weight"] for seed in range(60)
    ]
    assert runs[0].shape == (3, 64)
    # d logit_k / d w_kj = x_j, summed over a batch with random signs: the mean of squares.
    expected = (samples.normalize(samples.images).flatten(1) ** 2).mean(0)
    torch.testing.assert_close(torch.stack(runs).mean((0, 1)), expected, rtol=0.2, atol=0.05)


@pytest.fixture
def model():
    return toys.lived_in(toys.convnet())


def scheme_of(model, sparsity=0.8, bits=3):
    plan = {name: allocation.Choice(sparsity, bits, 0, 0) for name in prunable.weights(model)}
    return quantization_aware.QuantizationAware(
        lambda weights: plan, dict.fromkeys(plan, 0.0), "channel"
    )


def test_what_was_trained_is_what_is_quantized(model):
    scheme, data = scheme_of(model), toys.data()
    trained, curve = loop.fit(
        model, data, toys.training_params(), epochs=4, learning_rate=0.02, generator=generator(),
        scheme=scheme,
    )  # fmt: skip
    quantized = scheme.quantized(trained)
    network = linear.with_weights(trained, quantized)
    assert curve[-1].validation_accuracy == inference.accuracy(network, data.validation)
    inputs = toys.noise(5)
    with torch.no_grad():
        torch.testing.assert_close(scheme.logits(trained, inputs), network(inputs))
    for name, parts in quantized.items():
        assert parts.Q.abs().max() <= 3
        assert int((parts.Q == 0).sum()) >= round(0.8 * parts.Q.numel()), name


def test_the_gradient_passes_rounding_and_stops_at_pruned_weights(model):
    scheme = scheme_of(model, sparsity=0.5)
    scheme.before_step(model, 0.9)
    logits = scheme.logits(model, toys.noise(6))
    loss = functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2]))
    gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in scheme.plan])
    for name, gradient in zip(scheme.plan, gradients, strict=True):
        assert not gradient[scheme.masks[name] == 0].any()
    assert any(bool(gradient.any()) for gradient in gradients)


def test_sparsity_rises_and_masks_are_frozen_at_the_end(model):
    scheme = scheme_of(model, sparsity=0.9)
    left = []
    for progress in (0.0, 0.1, 0.3, 0.5, 0.8):
        scheme.before_step(model, progress)
        left.append(sum(int(mask.sum()) for mask in scheme.masks.values()))
    assert left == sorted(left, reverse=True)
    before = {name: mask.clone() for name, mask in scheme.masks.items()}
    with torch.no_grad():
        for name in before:
            model.get_parameter(name).add_(1.0)
    scheme.before_step(model, 0.9)
    assert all(torch.equal(scheme.masks[name], mask) for name, mask in before.items())


def context_of(baseline, times_smaller):
    """What `size_targets.sizes` asks of a stage's context."""
    return SimpleNamespace(
        params=SimpleNamespace(
            compress=SimpleNamespace(
                times_smaller=times_smaller, granularity="channel", epochs=1, learning_rate=0.01,
                sensitivity_images=10, distillation=0.5, temperature=4.0,
            ),
            training=toys.training_params(),
        ),
        baseline=baseline, data=toys.data(), precision=torch.float32, name="compress",
        generator=lambda purpose: generator(),
    )  # fmt: skip


ARM = size_targets.Arm("packed", allocation.SPARSITIES, (2, 4))


def test_each_size_keeps_its_budget_until_one_is_out_of_reach(model):
    factors = [2.0, 3.0, 1000.0]
    sizes = list(size_targets.sizes(context_of(model, factors), ARM))
    assert [size.times_smaller for size in sizes] == factors[:2]
    assert [size.epochs for size in sizes] == [1, 2]
    for size in sizes:
        file = packed.pack(size.network.model, size.network.quantized)
        assert len(file) <= checkpoints.serialized_bytes(model) / size.times_smaller


def test_a_layer_that_lost_all_its_codes_does_not_end_the_next_size(model):
    with torch.no_grad():
        model.conv3.weight.zero_()
    sizes = list(size_targets.sizes(context_of(model, [2.0, 3.0]), ARM))
    assert len(sizes) == 2
    assert not sizes[0].network.quantized["conv3.weight"].Q.any()


def test_batch_norms_without_pixels_are_not_fitted_to_a_single_image():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    # Batches of 500 and one.
    size_targets.finished(model, {}, toys.halves(501), generator())
