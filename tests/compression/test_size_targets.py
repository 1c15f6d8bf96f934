"""Networks for given sizes of their packed file: what holds whatever scheme makes them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stages import compress
from stages.lib.compression import packed, size_targets
from stages.lib.evaluation import inference
from stages.lib.models import checkpoints, prunable
from stages.lib.quantization import linear
from stages.lib.training import loop
from tests import toys
from tests.benchmarks import deep_compression


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def model():
    return toys.lived_in(toys.convnet(8))


def context(baseline, times_smaller, teacher=None):
    """What sizes ask of a stage's context."""
    options = SimpleNamespace(
        times_smaller=times_smaller, epochs=1, learning_rate=0.01, distillation=0.5,
        temperature=4.0,
    )  # fmt: skip
    params = SimpleNamespace(compress=options, training=toys.training_params())
    return SimpleNamespace(
        params=params, baseline=baseline, teacher=teacher or baseline, data=toys.data(),
        precision=torch.float32, replayed=False, name="compress", states=None, seed=0,
        generator=lambda purpose: generator(),
    )  # fmt: skip


def sizes(baseline, arm, times_smaller, **options):
    """The networks of one arm."""
    return list(size_targets.sizes(context(baseline, times_smaller, **options), arm))


ARMS = list(size_targets.ARMS.values())
each_arm = pytest.mark.parametrize("arm", ARMS, ids=[arm.method for arm in ARMS])


@each_arm
def test_each_size_is_met_and_one_out_of_reach_says_why(model, arm):
    factors = [8.0, 20.0, 1000.0]
    made, again = (sizes(model, arm, factors) for _ in range(2))
    assert [size.times_smaller for size in made] == factors
    assert [size.epochs for size in made] == [1, 2, 2]
    assert made[2].network is None
    assert "without a single code it takes" in made[2].note
    for size, other in zip(made[:2], again, strict=False):
        network, quantized = size.network
        file = packed.pack(network, quantized)
        assert file == packed.pack(*other.network)
        asked = checkpoints.serialized_bytes(model) / size.times_smaller
        assert 0.99 * asked <= len(file) <= asked
        assert toys.same_state(packed.unpack(file)[0], network)
        assert list(quantized) == list(prunable.weights(model))
        for name, (codes, _, _) in quantized.items():
            assert not network.get_parameter(name)[codes == 0].any()


def test_pruning_alone_keeps_the_largest_weights_and_quantization_alone_rounds(model):
    pruned, quantized = (
        sizes(model, size_targets.ARMS[name], [12.0])[0].network.quantized
        for name in ("pruned", "quantized")
    )
    assert all(int(parts.Q.abs().max()) == 127 for parts in pruned.values())
    assert all(int(parts.Q.abs().max()) < 64 for parts in quantized.values())
    share = {
        name: sum(float((parts.Q == 0).sum()) for parts in made.values())
        for name, made in (("pruned", pruned), ("quantized", quantized))
    }
    assert share["pruned"] > share["quantized"]


def test_a_layer_that_lost_all_its_codes_does_not_end_the_next_size(model):
    with torch.no_grad():
        model.conv3.weight.zero_()
    assert all(size.network for size in sizes(model, size_targets.ARMS["both"], [10.0, 20.0]))


def test_batch_norms_without_pixels_are_not_fitted_to_a_single_image():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    train = toys.halves(501)
    # Batches of 500 and one.
    batches = loop.batches(501, train.batch_size, generator())
    size_targets.finished(model, {}, train, batches)


@each_arm
def test_what_was_trained_is_what_is_quantized(model, arm):
    scheme = arm.scheme(model)
    scheme.aim(0.8 * scheme.flat.count)
    data = toys.data()
    trained, curve = loop.fit(
        model, data, toys.training_params(), epochs=4, learning_rate=0.02, generator=generator(),
        scheme=scheme,
    )  # fmt: skip
    network = linear.with_weights(trained, scheme.quantized(trained))
    assert curve[-1].validation_accuracy == inference.accuracy(network, data.validation)
    with torch.no_grad():
        logits = scheme.logits(trained, toys.noise(5))
        torch.testing.assert_close(logits, network(toys.noise(5)))


def test_a_wider_network_can_be_the_teacher_of_all_and_of_the_control(model):
    wide = toys.lived_in(toys.convnet(16))
    arm = size_targets.ARMS["both"]
    own, other = (sizes(model, arm, [10.0], teacher=one) for one in (model, wide))
    assert not toys.same_state(own[0].network.model, other[0].network.model)
    control, epochs = size_targets.uncompressed(context(model, [10.0, 20.0], teacher=wide))
    assert epochs == 2
    assert not toys.same_state(control, model)
    assert checkpoints.serialized_bytes(control) == checkpoints.serialized_bytes(model)


def test_deep_compression_is_measured_at_the_same_sizes(model, capsys):
    weight = torch.tensor([[0.0, 1.0, 1.1], [-2.0, 0.0, -2.2]])
    groups = deep_compression.assigned(weight)
    assert groups[0, 0] == groups[1, 1] == 0
    shared = deep_compression.means(weight, groups)
    assert not shared[groups == 0].any()
    torch.testing.assert_close(shared, weight, rtol=0.1, atol=0)
    deep_compression.compressed(context(model, [8.0, 20.0]))
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines] == ["8 ×", "20 ×"]
    assert all(float(line[2].split()[0]) > 0.8 * float(line[1].split()[0]) for line in lines)


def test_an_arm_is_refused_by_the_name_of_its_networks():
    methods = {name: arm.method for name, arm in size_targets.ARMS.items()}
    assert methods | {"baseline": "baseline_taught"} == compress.METHODS
