"""Normalization as part of the first convolution: the same answers from raw pixels."""

import onnx
import pytest
from torch import nn

from stages.lib.engines import onnx_export, onnx_pixels
from tests import toys
from tests.onnx_toys import answers, int8, operators, samples


def first(channels=1, **options):
    """A network of one convolution and a mean over its outputs."""
    layers = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(channels, 5, 3, **options), *layers)


def twice(net, pixels):
    """Reads the images twice."""
    return net.conv(pixels).mean((2, 3)) + pixels.mean((1, 2, 3))[:, None]


def exported(model, given):
    return onnx_export.export(toys.lived_in(model), given, ["a"], {})


def folded(file):
    return onnx_pixels.folded(onnx.shape_inference.infer_shapes(onnx.load_from_string(file)))


def difference(given, one, other):
    wanted = answers(one, given)
    return float((wanted - answers(other, given)).abs().max() / wanted.abs().max())


def graph_of(file):
    """Its graph, and the values that it holds."""
    graph = onnx.load_from_string(file).graph
    return graph, onnx_pixels.constants(graph)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [{}, {"padding": (2, 1), "stride": 2, "bias": False}, {"padding": 2, "dilation": 2}],
    ids=str,
)
def test_the_network_answers_as_before(channels, options):
    given = samples(20, (channels, 9, 7))
    file = exported(first(channels, **options), given)
    found = folded(file).SerializeToString()
    assert operators(found)[:3] == ["Pad", "Cast", "Conv"]
    assert not {"Mul", "Add"} & set(operators(found))
    assert difference(given, file, found) < 1e-5
    weight = graph_of(found)[1][onnx_pixels.WEIGHT]
    assert weight.shape[1] % 4 == 0
    assert channels < weight.shape[1] <= channels + 4


@pytest.mark.parametrize(
    "model",
    [
        toys.Net(twice, conv=nn.Conv2d(3, 5, 3)),
        first(3, padding=1, padding_mode="reflect"),
        nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.AvgPool2d(2), first(3)),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 63, 4)),
    ],
    ids=["read twice", "reflected", "depthwise", "pooled first", "linear"],
)
def test_a_network_that_begins_otherwise_is_left_as_it_is(model):
    given = samples(20, (3, 9, 7))
    file = exported(model, given)
    before = onnx.shape_inference.infer_shapes(onnx.load_from_string(file))
    assert folded(file).SerializeToString() == before.SerializeToString()
    # And it is quantized all the same.
    assert difference(given, file, int8(file, given.images)) < 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_int8_reads_the_pixels_as_they_are(channels):
    given = samples(20, (channels, 9, 7))
    file = exported(first(channels, padding=1), given)
    # Dark images do not narrow the range of pixels: bright ones are still told apart.
    for seen in (given.images, given.images // 50):
        small = int8(file, seen)
        assert "Cast" not in operators(small)
        graph, values = graph_of(small)
        (reader,) = [node for node in graph.node if onnx_pixels.PADDED in node.input]
        assert reader.op_type == "DequantizeLinear"
        assert [values[name] for name in reader.input[1:]] == [1, 0]
    assert difference(given, file, int8(file, given.images)) < 0.05
