"""What is done to weights and biases before they become int8, against ONNX Runtime."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from stages.lib.engines import (
    adaptive_rounding,
    bias_correction,
    calibration,
    equalization,
    executors,
    int8_layers,
    layer_errors,
    onnx_export,
    onnx_int8,
    onnx_session,
)
from tests import toys
from tests.onnx_toys import samples

CLASSES = ["a", "b", "c"]


def answers(proto, images):
    execute = onnx_session.load(proto.SerializeToString(), 1, "the network")
    return executors.logits(execute, images, 50)


def ranges_of(proto, images):
    observed = onnx_int8.observe(proto.SerializeToString(), images, 1)
    return {name: calibration.method("minmax", 99)(values) for name, values in observed.items()}


def made(network, given):
    return onnx_int8.inferred(onnx_export.export(network, given, CLASSES, {}))


@pytest.fixture(scope="module")
def given():
    return samples(64)


@pytest.fixture(scope="module")
def proto(given):
    return made(toys.lived_in(toys.convnet(8)), given)


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Linear(8 * 16, 3)

    def forward(self, images):
        found = torch.relu(self.depth(torch.relu(self.first(images))))
        return self.last(nn.functional.max_pool2d(found, 2).flatten(1))


@pytest.mark.parametrize("bits", [8, 7])
def test_the_grid_is_that_of_onnx_runtimes_tools(proto, given, bits):
    """The file's integers times its scales are the weights that were rounded here."""
    ranges = ranges_of(proto, given.images)
    file = onnx_int8.quantize(proto.SerializeToString(), ranges, bits, {})
    graph = onnx.load_from_string(file).graph
    stored = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    seen = 0
    for layer in int8_layers.layers(proto.graph):
        weights = int8_layers.weight(proto.graph, layer.weight)
        codes, scale = (stored[f"{layer.weight}_{what}"] for what in ("quantized", "scale"))
        shape = [1] * codes.ndim
        shape[layer.axis] = -1
        there = codes.astype(np.float64) * scale.reshape(shape)
        mine = int8_layers.nearest(weights, layer.axis, bits)
        assert np.allclose(there, mine, atol=1e-6 * np.abs(mine).max())
        seen += 1
    assert seen == 8


@pytest.mark.parametrize("build", [lambda: toys.lived_in(toys.convnet(8)), Depthwise])
def test_an_equalized_network_computes_the_same_with_equal_channels(build, given):
    before = made(build().eval(), given)
    after = equalization.equalized(before)
    wanted, found = answers(before, given.images), answers(after, given.images)
    assert torch.allclose(wanted, found, atol=1e-4 * float(wanted.abs().max()))
    pairs = list(equalization._pairs(after.graph))
    assert len(pairs) >= 2
    for first, second in pairs:
        rows = int8_layers.weight(after.graph, first.weight)
        channels = rows.shape[first.axis]
        out = np.abs(np.moveaxis(rows, first.axis, 0).reshape(channels, -1)).max(1)
        weights = int8_layers.weight(after.graph, second.weight)
        read = np.abs(equalization._by_input(second, weights, channels)).max(1)
        assert np.allclose(out, read, rtol=0.05)


def test_a_corrected_bias_takes_back_the_mean_shift_of_rounding(given):
    """Of a linear network with rounded weights, the mean answer is the exact one again."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    exact = made(network, given)
    (layer,) = int8_layers.layers(exact.graph)

    def rounded(proto, bits):
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        weights = int8_layers.weight(proto.graph, layer.weight)
        int8_layers.put(proto.graph, layer.weight, int8_layers.nearest(weights, 0, bits))
        return answers(proto, given.images).double().mean(0)

    wanted = answers(exact, given.images).double().mean(0)
    corrected = bias_correction.corrected(exact, given.images, 7, 1)
    assert float((rounded(exact, 7) - wanted).abs().max()) > 1e-4
    assert float((rounded(corrected, 7) - wanted).abs().max()) < 1e-5


def noise(exact, proto, given, bits=8):
    return layer_errors.table(exact, proto, ranges_of(exact, given.images), given.images, bits, 1)


def test_the_noise_of_a_layer_is_that_of_its_rounding_alone(proto, given):
    lines = noise(proto, proto, given)
    assert [line["layer"] for line in lines] == [
        "conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "hidden", "classifier",
    ]  # fmt: skip
    assert all(20 < line["decibels"] < 70 for line in lines)
    coarse = noise(proto, proto, given, bits=7)
    # A bit is 6 dB of what the weights contribute.
    assert all(b["decibels"] < a["decibels"] for a, b in zip(lines, coarse, strict=True))
    ordered = layer_errors.noisiest([*lines, {"layer": "exact", "decibels": None}])
    levels = [line["decibels"] for line in ordered[:-1]]
    assert levels == sorted(levels)
    assert ordered[-1]["layer"] == "exact"


def test_adaptive_rounding_stays_on_the_grid_and_leaves_less_noise(proto, given, monkeypatch):
    monkeypatch.setattr(adaptive_rounding, "STEPS", 150)
    after = adaptive_rounding.rounded(proto, given.images, 7, 1)
    for layer in int8_layers.layers(proto.graph):
        weights, chosen = (int8_layers.weight(one.graph, layer.weight) for one in (proto, after))
        step = int8_layers.scales(weights, layer.axis, 7)
        codes = chosen / step
        assert np.allclose(codes, np.round(codes), atol=1e-3)
        # Up or down, and no further.
        assert (np.abs(chosen - weights) <= step * 1.001).all()
        # Rounding again moves nothing.
        assert np.allclose(int8_layers.nearest(chosen, layer.axis, 7), chosen, atol=1e-6)
    before, better = noise(proto, proto, given, 7), noise(proto, after, given, 7)
    gains = [b["decibels"] - a["decibels"] for a, b in zip(before, better, strict=True)]
    assert min(gains) > -0.5
    assert np.mean(gains) > 0.5


def test_a_kept_layer_is_computed_in_float32(proto, given):
    ranges = ranges_of(proto, given.images)
    model = proto.SerializeToString()
    names = [layer.name for layer in int8_layers.layers(proto.graph)]
    stored = {
        keep: len(onnx_int8.quantize(model, ranges, 8, {}, names[:keep])) for keep in (0, 1, 8)
    }
    assert stored[0] < stored[1] < stored[8]
    file = onnx_int8.quantize(model, ranges, 8, {}, names)
    wanted, found = answers(proto, given.images), answers(onnx.load_from_string(file), given.images)
    assert float((wanted - found).abs().max()) < 0.05 * float(wanted.abs().max())
