"""What a quantized network is before it is packed: the same answers from fewer bytes."""

import copy

import pytest
import torch
from torch import nn

from stages.lib.compression import batch_norm, folding, packed
from stages.lib.evaluation import difference
from stages.lib.models import prunable
from stages.lib.quantization import linear, short_floats
from tests import toys

BATCH = toys.noise(20)


def quantized(model, bits=4):
    return {
        name: linear.quantize(weight, bits, "symmetric", "channel")
        for name, weight in prunable.weights(model).items()
    }


def residual():
    """A convolution whose output goes to a batch norm and past it; one that a batch norm follows
    twice; and one with a bias.
    """

    def answer(net, images):
        images = net.past(images)
        images = images + net.norm(images).relu()
        images = net.both(net.twice(images)) + net.both(net.twice(images.relu()))
        return net.last(net.biased(images)).mean((2, 3))

    return toys.Net(
        answer,
        past=nn.Conv2d(1, 3, 3, bias=False), norm=nn.BatchNorm2d(3),
        twice=nn.Conv2d(3, 3, 1, bias=False), both=nn.BatchNorm2d(3),
        biased=nn.Conv2d(3, 4, 1), last=nn.BatchNorm2d(4),
    )  # fmt: skip


def chain():
    """Layers with a batch norm after each."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Flatten(), nn.Linear(80, 3), nn.BatchNorm1d(3),
    )  # fmt: skip


@pytest.mark.parametrize("build", [toys.convnet, chain, residual])
def test_it_answers_as_the_quantized_network(build):
    model = toys.lived_in(build())
    parts, before = quantized(model), copy.deepcopy(model)
    small = folding.compacted(model, parts, BATCH)
    assert difference.largest(linear.with_weights(model, parts), small.model, BATCH) < 0.05
    assert toys.same_state(model, before)
    for name, (codes, scale, _) in small.quantized.items():
        assert torch.equal(codes, parts[name].Q)
        assert torch.equal(
            small.model.get_parameter(name), linear.dequantize(small.quantized[name])
        )
        # The answers tell that the scales of one layer of `residual` must stay: all do.
        expected = parts[name].S if build is residual else torch.ones_like(scale)
        assert build is toys.convnet or torch.equal(scale, expected)


def test_statistics_estimated_anew_are_those_of_the_batches():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.9)).eval()
    before = copy.deepcopy(model)
    batches = list(toys.noise(40).split(10))
    fitted = batch_norm.recalibrated(model, batches)
    with torch.no_grad():
        outputs = [model[0](batch) for batch in batches]
    for statistic, values in (
        ("running_mean", [output.mean((0, 2, 3)) for output in outputs]),
        ("running_var", [output.var((0, 2, 3)) for output in outputs]),
    ):
        torch.testing.assert_close(getattr(fitted[1], statistic), torch.stack(values).mean(0))
    assert not fitted.training
    assert toys.same_state(model, before)


def test_norms_become_weight_and_bias():
    model = toys.lived_in(toys.convnet())
    affine = batch_norm.affine(model)
    assert difference.largest(affine, model, BATCH) < 1e-5
    assert all(len(buffer.unique()) == 1 for buffer in affine.buffers())


def test_all_else_is_short_where_it_can_be():
    model = toys.lived_in(chain())
    model[8].bias.data[0] = 1e9
    small = folding.compacted(model, quantized(model), BATCH)
    for name, parameter in small.model.named_parameters():
        if name not in small.quantized and name != "8.bias":
            assert torch.equal(short_floats.rounded(parameter), parameter), name
    assert float(small.model[8].bias.detach().abs().max()) > 1e8


def test_the_file_is_smaller():
    model = toys.lived_in(toys.convnet(8))
    parts = quantized(model)
    plain = packed.pack(linear.with_weights(model, parts), parts)
    small = folding.compacted(model, parts, BATCH)
    assert len(packed.pack(small.model, small.quantized)) < 0.9 * len(plain)
