"""Networks for given sizes of their packed file: what holds whatever scheme makes them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stages.lib.compression import allocation, packed, quantization_aware, size_targets
from stages.lib.evaluation import inference
from stages.lib.models import checkpoints, prunable
from stages.lib.quantization import linear
from stages.lib.training import loop
from tests import toys


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def model():
    return toys.lived_in(toys.convnet())


def sizes(baseline, arm, times_smaller):
    """The networks of one arm, with what that asks of a stage's context."""
    options = SimpleNamespace(
        times_smaller=times_smaller, granularity="channel", epochs=1, learning_rate=0.01,
        sensitivity_images=10, distillation=0.5, temperature=4.0,
    )  # fmt: skip
    params = SimpleNamespace(compress=options, training=toys.training_params())
    context = SimpleNamespace(
        params=params, baseline=baseline, data=toys.data(), precision=torch.float32,
        name="compress", generator=lambda purpose: generator(),
    )  # fmt: skip
    return list(size_targets.sizes(context, arm))


ARMS = size_targets.arms(["both", "pruned", "quantized"], [2, 4])


@pytest.mark.parametrize("arm", ARMS, ids=[arm.method for arm in ARMS])
def test_each_size_is_met_until_one_is_out_of_reach(model, arm):
    factors = [1.5, 2.0, 1000.0]
    made, again = (sizes(model, arm, factors) for _ in range(2))
    assert [size.times_smaller for size in made] == factors[:2]
    assert [size.epochs for size in made] == [1, 2]
    for size, other in zip(made, again, strict=True):
        network, quantized = size.network
        file = packed.pack(network, quantized)
        assert file == packed.pack(*other.network)
        assert len(file) <= checkpoints.serialized_bytes(model) / size.times_smaller
        assert toys.same_state(packed.unpack(file)[0], network)
        assert list(quantized) == list(prunable.weights(model))
        for name, (codes, _, _) in quantized.items():
            assert codes.abs().max() <= 2 ** (max(arm.bits) - 1) - 1
            assert not network.get_parameter(name)[codes == 0].any()


def test_a_layer_that_lost_all_its_codes_does_not_end_the_next_size(model):
    with torch.no_grad():
        model.conv3.weight.zero_()
    made = sizes(model, ARMS[0], [2.0, 3.0])
    assert len(made) == 2
    assert not made[0].network.quantized["conv3.weight"].Q.any()


def test_batch_norms_without_pixels_are_not_fitted_to_a_single_image():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    # Batches of 500 and one.
    size_targets.finished(model, {}, toys.halves(501), generator())


def test_what_was_trained_is_what_is_quantized(model):
    plan = {name: allocation.Choice(0.8, 3, 0, 0) for name in prunable.weights(model)}
    scheme = quantization_aware.QuantizationAware(
        lambda weights: plan, dict.fromkeys(plan, 0.0), "channel"
    )
    data = toys.data()
    trained, curve = loop.fit(
        model, data, toys.training_params(), epochs=4, learning_rate=0.02, generator=generator(),
        scheme=scheme,
    )  # fmt: skip
    quantized = scheme.quantized(trained)
    network = linear.with_weights(trained, quantized)
    assert curve[-1].validation_accuracy == inference.accuracy(network, data.validation)
    with torch.no_grad():
        logits = scheme.logits(trained, toys.noise(5))
        torch.testing.assert_close(logits, network(toys.noise(5)))
    for name, (codes, _, _) in quantized.items():
        assert codes.abs().max() <= 3
        assert int((codes == 0).sum()) >= round(0.8 * codes.numel()), name
