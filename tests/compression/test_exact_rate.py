"""Training at an exact rate, and the formulas of the rate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from stages.lib.compression import entropy, exact_rate, rate
from stages.lib.compression.exact_rate import ExactRate
from stages.lib.compression.flat_weights import ROW, FlatWeights
from stages.lib.evaluation import inference
from stages.lib.models import prunable
from stages.lib.training import loop
from tests import toys


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model():
    return toys.lived_in(toys.convnet())


def codes_bits(quantized):
    return sum(entropy.bound_bits(parts.Q.numpy()) for parts in quantized.values())


shapes = st.lists(st.integers(1, 9), min_size=0, max_size=4).map(tuple)


@given(st.lists(shapes, min_size=1, max_size=4), st.integers(0, 3), st.booleans())
@toys.few_examples
def test_a_matrix_holds_the_weights_of_all_layers_in_their_own_layout(shapes, seed, last):
    weights = {str(i): toys.noise(1, shape, seed=i + seed)[0] for i, shape in enumerate(shapes)}
    if last:
        weights["long"] = toys.noise(1, (3, 5, 16, 16))[0].to(memory_format=torch.channels_last)
    flat = FlatWeights(weights)
    matrix = flat.gathered(list(weights.values()))
    assert int((matrix != 0).sum()) == flat.count == sum(w.numel() for w in weights.values())
    assert matrix.numel() == int((flat.lengths + flat.padding).sum())
    for view, weight in zip(flat.views(matrix), weights.values(), strict=True):
        assert torch.equal(view, weight)
        assert view.stride() == weight.stride() or weight.numel() == 1
        assert view.untyped_storage().data_ptr() == matrix.untyped_storage().data_ptr()
    sums = torch.stack([weight.sum() for weight in weights.values()])
    torch.testing.assert_close(flat.sums(matrix), sums, rtol=1e-4, atol=1e-4)
    alone = flat.spread(torch.arange(len(weights)) + 1.0) * (matrix != 0)
    torch.testing.assert_close(flat.sums(alone), flat.lengths * (torch.arange(len(weights)) + 1.0))


def laplace_bits(x, scale):
    """-log2 of the probability of |x| - 1/2 ... |x| + 1/2."""

    def beyond(start):
        tail = torch.exp(-start.abs() / scale) / 2
        return torch.where(start < 0, 1 - tail, tail)

    return -(beyond(x.abs() - 0.5) - beyond(x.abs() + 0.5)).log2()


# At ½, the bits of the definition have a kink of rounding.
@given(st.floats(-8, 8).filter(lambda x: abs(x) != 0.5), st.floats(0.05, 20))
@toys.few_examples
def test_the_slope_of_the_rate_is_that_of_the_bits_of_a_laplace_distribution(x, scale):
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(laplace_bits(x, scale), x)
    found = rate.slope(x.detach(), torch.tensor(scale, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@given(st.integers(1, 3 * ROW), st.integers(1, 50), st.floats(0.1, 300))
@toys.few_examples
def test_the_bits_are_those_of_each_layers_histogram(first, second, size):
    layers = {"a": toys.laplace(first) * size, "b": toys.laplace(second) * size}
    flat = FlatWeights(layers)
    codes = rate.codes(flat.gathered(list(layers.values())))
    expected = sum(entropy.bound_bits(view.to(torch.int8).numpy()) for view in flat.views(codes))
    assert float(rate.entropy(rate.histogram(codes, flat))) == pytest.approx(expected, abs=1e-6)


@given(st.floats(0.05, 5), st.floats(-3, 3))
@toys.few_examples
def test_steps_move_until_codes_need_the_bits_and_no_more(bits, start):
    weights = toys.laplace(5000) * math.exp(start)
    calls = []

    def bits_at(shift):
        calls.append(shift)
        return entropy.bound_bits((weights * 50 * math.exp(-shift)).round().int().numpy())

    shift = rate.shift_for(bits_at, bits * 5000)
    # One weight more or less in a code is what a rate cannot come closer than.
    assert bits * 5000 * (1 - rate.TOLERANCE) - 15 <= bits_at(shift) <= bits * 5000
    assert len(calls) < 60


def test_a_rate_beyond_all_codes_and_one_of_no_bits_are_answered_too():
    assert rate.shift_for(lambda shift: 10.0, 20.0) <= -rate.FURTHEST
    # Beyond a shift of -1 codes are clipped.
    assert rate.shift_for(lambda shift: 9.0 - abs(shift + 1), 20.0) == pytest.approx(-1, abs=0.5)
    assert rate.shift_for(lambda shift: 10.0, 5.0) >= rate.FURTHEST


def test_the_target_falls_from_the_first_rate_to_the_last_and_stays():
    path = [rate.falling(step / 100, 3.0, 0.5) for step in range(101)]
    assert path[0] == pytest.approx(3.0)
    assert path == sorted(path, reverse=True)
    assert path[round(100 * rate.RAMP) :] == pytest.approx([0.5] * (101 - round(100 * rate.RAMP)))


def test_gradients_are_those_of_the_loss_and_the_priced_rate(model, monkeypatch):
    monkeypatch.setattr(exact_rate, "LIMIT", math.inf)
    model.train()
    scheme = ExactRate(model)
    scheme.before_step(model, 0.2)
    # In the second step the means have a past.
    for _ in range(2):
        images, labels = toys.noise(6), torch.tensor([0, 1, 2, 0, 1, 2])
        before = scheme.log_steps.clone()
        loss = functional.cross_entropy(scheme.logits(model, images), labels)
        parameters = list(model.parameters())
        found = scheme.gradients(model, loss, parameters)

    log_steps = dict(zip(scheme.flat.names, before.unbind(), strict=True))
    variables = {name: value.clone().requires_grad_() for name, value in log_steps.items()}
    scales = dict(zip(scheme.flat.names, scheme.scale / (1 - 0.9**2), strict=True))
    weights, bits = {}, 0.0
    for name, log_step in variables.items():
        x = model.get_parameter(name) / log_step.exp()
        weights[name] = (x + (x.round() - x).detach()) * log_step.exp()
        bits = bits + laplace_bits(x, scales[name]).sum() / scheme.flat.count
    loss = functional.cross_entropy(functional_call(model, weights, images), labels)
    price = float(scheme.price)
    assert price > 0
    expected = torch.autograd.grad(loss + price * bits, parameters, retain_graph=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    steps = torch.stack(torch.autograd.grad(loss + price * bits, list(variables.values())))
    # Steps of Adam: all at the learning rate nearly, against the slope, without a common change.
    moved = scheme.log_steps - before
    assert float(moved.sum()) == pytest.approx(0, abs=1e-5)
    assert 0 < float(moved.abs().max()) < 3 * exact_rate.STEP_RATE
    assert float((moved * steps).sum()) < 0


class NothingRead(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: values on the host, and shapes that depend on them."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "bincount", "unique"), name
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_reads_nothing_on_the_host_and_keeps_its_state_in_place(model, precision):
    model.train()
    scheme = ExactRate(model)
    parameters = list(model.parameters())
    scheme.before_step(model, 0.0)
    names = ("log_steps", "slopes", "scale", "largest", "mean", "square", "steps_done", "step_rate")
    places = {name: getattr(scheme, name).data_ptr() for name in names}
    for _ in range(2):
        with NothingRead(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            logits = scheme.logits(model, toys.noise(4))
            loss = functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0]))
        with NothingRead():
            gradients = scheme.gradients(model, loss, parameters)
    assert {name: getattr(scheme, name).data_ptr() for name in names} == places
    assert float(scheme.steps_done) == 2
    for gradient, parameter in zip(gradients, parameters, strict=True):
        assert gradient.shape == parameter.shape
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()


def trained(model, bits, epochs=8, precision=torch.float32):
    """The scheme and network of trainings to these rates, in bits per weight, one after another."""
    scheme, data, curves = ExactRate(model), toys.data(train=60), []
    for goal in bits:
        scheme.aim(goal * scheme.flat.count)
        model, curve = loop.fit(
            model, data, toys.training_params(), epochs=epochs, learning_rate=0.05,
            generator=generator(), scheme=scheme, precision=precision,
        )  # fmt: skip
        curves.append(curve)
    return scheme, model, data, curves


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_trainings_follow_each_other_to_lower_rates_and_still_classify(model, precision):
    runs = [trained(model, [1.5, 0.5], precision=precision) for _ in range(2)]
    scheme, network, data, curves = runs[0]
    scheme.hold(network, scheme.last_bits)
    quantized = scheme.quantized(network)
    assert list(quantized) == list(prunable.weights(model))
    bits = codes_bits(quantized)
    assert 0.97 * 0.5 * scheme.flat.count < bits <= 0.5 * scheme.flat.count
    assert inference.accuracy(scheme.network(network), data.test) > 0.9
    assert curves == runs[1][3]
    assert toys.same_state(network, runs[1][1])


def test_the_rate_is_held_at_every_step(model):
    scheme = ExactRate(model)
    scheme.aim(0.8 * scheme.flat.count)
    seen = []
    before_step = scheme.before_step

    def spy(network, progress):
        before_step(network, progress)
        wanted = rate.falling(progress, scheme.first_bits, scheme.last_bits)
        seen.append(codes_bits(scheme.quantized(network)) / wanted)

    scheme.before_step = spy
    loop.fit(
        model, toys.data(), toys.training_params(), epochs=4, learning_rate=0.05,
        generator=generator(), scheme=scheme,
    )  # fmt: skip
    assert len(seen) == 12
    assert all(0.97 < share <= 1 for share in seen)


@pytest.mark.parametrize("bits", [0.2, 0.05])
def test_a_rate_that_leaves_filters_without_codes_does_not_end_in_nothing(model, bits):
    _, network, _, curves = trained(model, [bits])
    assert all(math.isfinite(epoch.train_loss) for epoch in curves[0])
    assert all(bool(weight.isfinite().all()) for weight in network.parameters())
    largest = max(float(w.abs().max()) for w in prunable.weights(network).values())
    assert largest < 10 * max(float(w.abs().max()) for w in prunable.weights(model).values())


@pytest.mark.parametrize("share", [1, 0.1, 0.01])
def test_usual_slopes_pass_however_sparse_they_are_and_a_burst_is_cut(share):
    scheme, random = ExactRate(nn.Linear(100, 100)), generator()

    def drawn():
        slopes = torch.randn(10, ROW, generator=random)
        return slopes * (torch.rand(10, ROW, generator=random) < share)

    for _ in range(300):
        slopes = drawn()
        assert torch.equal(scheme._limited(slopes), slopes)
        scheme.steps_done += 1
    usual = float(slopes.abs().max())
    burst = scheme._limited(300 * drawn())
    assert usual < float(burst.abs().max()) < 6 * usual


def test_a_layer_of_zeros_and_frozen_weights_are_no_trouble(model):
    with torch.no_grad():
        model.conv3.weight.zero_()
    model.conv2.weight.requires_grad_(False)
    scheme, network, _, _ = trained(model, [1.0], epochs=1)
    assert torch.equal(network.conv2.weight, model.conv2.weight)
    assert all(math.isfinite(step) for step in scheme.log_steps.tolist())
