"""Normalization as part of the first convolution: the same answers from raw pixels."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from stages.lib.engines import calibration, onnx_export, onnx_int8, onnx_pixels, onnx_session
from stages.lib.evaluation import images
from stages.lib.evaluation.samples import Samples
from tests import toys

CPU = torch.device("cpu")


class First(nn.Module):
    """A network of one convolution and a mean over its outputs."""

    def __init__(self, channels=1, **options):
        super().__init__()
        self.conv = nn.Conv2d(channels, 5, 3, **options)

    def forward(self, pixels):
        return self.conv(pixels).relu().mean((2, 3))


class Twice(First):
    """One that reads the images twice."""

    def forward(self, pixels):
        return super().forward(pixels) + pixels.mean((1, 2, 3))[:, None]


def samples(channels, count=20):
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, 9, 7)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    means, deviations = [0.4, 0.5, 0.6, 0.3][:channels], [0.2, 0.3, 0.25, 0.2][:channels]
    normalize = images.Normalize(means, deviations, CPU)
    return Samples(pixels, torch.zeros(count).long(), normalize)


def exported(model, given):
    return onnx_export.export(model, given, ["a"], {})


def folded(file):
    return onnx_pixels.folded(onnx.shape_inference.infer_shapes(onnx.load_from_string(file)))


def operators(proto):
    return [node.op_type for node in proto.graph.node]


def answers(file, given):
    return onnx_session.logits(onnx_session.session(file, 1), given.images, 100)


def int8(file, images):
    """The int8 network, and what was observed."""
    observed = onnx_int8.observe(file, images, 1)
    minmax = calibration.method("minmax", 100)
    ranges = {name: minmax(values) for name, values in observed.items()}
    return onnx_int8.quantize(file, ranges, 8, {}), observed


def difference(one, other):
    return float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": (2, 1), "stride": 2, "bias": False},
        {"padding": 2, "dilation": 2},
    ],
    ids=str,
)
def test_the_network_answers_as_before(channels, options):
    given = samples(channels)
    file = exported(toys.lived_in(First(channels, **options)), given)
    found = folded(file)
    assert operators(found)[:3] == ["Pad", "Cast", "Conv"]
    assert not {"Mul", "Add"} & set(operators(found))
    assert difference(answers(file, given), answers(found.SerializeToString(), given)) < 1e-5
    weight = onnx_pixels.constants(found.graph)[onnx_pixels.WEIGHT]
    assert weight.shape[1] % 4 == 0
    assert channels < weight.shape[1] <= channels + 4


@pytest.mark.parametrize(
    "model",
    [
        Twice(3, padding=1),
        First(3, padding=1, padding_mode="reflect"),
        nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.AvgPool2d(2), First(3)),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 63, 4)),
    ],
    ids=["read twice", "reflected", "depthwise", "pooled first", "linear"],
)
def test_a_network_that_begins_otherwise_is_left_as_it_is(model):
    given = samples(3)
    file = exported(toys.lived_in(model), given)
    before = onnx.shape_inference.infer_shapes(onnx.load_from_string(file))
    assert folded(file).SerializeToString() == before.SerializeToString()
    # And it is quantized all the same.
    small, _ = int8(file, given.images)
    assert difference(answers(file, given), answers(small, given)) < 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_int8_reads_the_pixels_as_they_are(channels):
    given = samples(channels)
    file = exported(toys.lived_in(First(channels, padding=1)), given)
    small, _ = int8(file, given.images)
    proto = onnx.load_from_string(small)
    assert "Cast" not in operators(proto)
    readers = [node.op_type for node in proto.graph.node if onnx_pixels.PADDED in node.input]
    assert readers == ["DequantizeLinear"]
    assert difference(answers(file, given), answers(small, given)) < 0.05


def test_dark_images_do_not_narrow_the_range_of_pixels():
    """Calibrated on nearly black images, bright ones are still told apart."""
    given = samples(3)
    file = exported(toys.lived_in(First(3, padding=1)), given)
    small, observed = int8(file, given.images // 50)
    pixels = observed[onnx_pixels.PIXELS]
    assert pixels.high - pixels.low > 200  # the new channel is 255
    graph = onnx.load_from_string(small).graph
    known = onnx_pixels.constants(graph)
    step = next(node for node in graph.node if onnx_pixels.PADDED in node.input)
    assert known[step.input[1]] == 1
    assert known[step.input[2]] == 0


def test_zeros_of_the_weights_stay_zeros():
    given = samples(3)
    model = toys.lived_in(First(3, padding=1))
    pruned = torch.rand(model.conv.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    model.conv.weight.data[pruned] = 0
    small, _ = int8(exported(model, given), given.images)
    tensors = onnx_pixels.constants(onnx.load_from_string(small).graph).values()
    (levels,) = [value for value in tensors if value.dtype == np.int8 and value.ndim == 4]
    assert not levels[:, :3][pruned.numpy()].any()
    # The offset is where its filter has weights, and the unused channels are nothing.
    assert np.array_equal(levels[:, 3].any((1, 2)), ~pruned.numpy().all((1, 2, 3)))
