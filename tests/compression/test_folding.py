"""What a quantized network is before it is packed: the same answers from fewer bytes."""

import copy

import pytest
import torch
from torch import nn

from stages.lib.compression import batch_norm, folding, packed
from stages.lib.models import prunable
from stages.lib.quantization import linear, mse_scales, short_floats
from tests import toys

BATCH = toys.noise(20)


def quantized(model, bits=4):
    return {
        name: mse_scales.quantize(weight, bits, "channel")
        for name, weight in prunable.weights(model).items()
    }


class Residual(nn.Module):
    """A convolution whose output goes to a batch norm and past it; one that a batch norm follows
    twice; and one with a bias.
    """

    def __init__(self):
        super().__init__()
        self.past = nn.Conv2d(1, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.twice = nn.Conv2d(3, 3, 1, bias=False)
        self.both = nn.BatchNorm2d(3)
        self.biased = nn.Conv2d(3, 4, 1)
        self.last = nn.BatchNorm2d(4)

    def forward(self, images):
        found = self.past(images)
        found = found + self.norm(found).relu()
        found = self.both(self.twice(found)) + self.both(self.twice(found.relu()))
        return self.last(self.biased(found)).mean((2, 3))


class Chain(nn.Sequential):
    """Convolutions with a batch norm after each."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Flatten(), nn.LazyLinear(3), nn.BatchNorm1d(3),
        )  # fmt: skip
        self(BATCH)


@pytest.mark.parametrize("build", [toys.convnet, Chain, Residual])
def test_it_answers_as_the_quantized_network(build):
    model = toys.lived_in(build())
    parts = quantized(model)
    before = copy.deepcopy(model.state_dict())
    small = folding.compacted(model, parts, BATCH)
    with torch.no_grad():
        wanted = linear.with_weights(model, parts)(BATCH)
        assert float((small.model(BATCH) - wanted).abs().max() / wanted.abs().max()) < 0.05
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    for name, one in small.quantized.items():
        assert torch.equal(one.Q, parts[name].Q)
        assert torch.equal(small.model.get_parameter(name), linear.dequantize(one))


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
    assert fitted[1].momentum == 0.1
    assert toys.same_state(model, before)


def test_norms_become_weight_and_bias():
    model = toys.lived_in(toys.convnet())
    found = batch_norm.affine(model)
    with torch.no_grad():
        torch.testing.assert_close(found(BATCH), model(BATCH))
    for name, buffer in found.named_buffers():
        assert len(buffer.unique()) == 1, name


def test_scales_go_into_the_norm_that_follows():
    model = toys.lived_in(Chain())
    small = folding.compacted(model, quantized(model), BATCH)
    for name, one in small.quantized.items():
        assert torch.equal(one.S, torch.ones_like(one.S)), name
        bias = name.removesuffix("weight") + "bias"
        if bias in dict(small.model.named_parameters()):
            assert not small.model.get_parameter(bias).any()


def test_scales_stay_where_others_read_the_layer():
    """All of this network keeps its scales: the answers tell that one layer's must stay."""
    model = toys.lived_in(Residual())
    parts = quantized(model)
    small = folding.compacted(model, parts, BATCH)
    assert all(torch.equal(small.quantized[name].S, one.S) for name, one in parts.items())


def test_all_else_is_short_where_it_can_be():
    model = toys.lived_in(Chain())
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
