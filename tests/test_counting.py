import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stages.lib import counting, masks
from tests import toys

WIDTHS = [(4, 1, 3), (5, 3, 2), (32, 3, 10)]


def odd_network():
    """Strided, grouped, depthwise and dilated convolutions without padding, and a linear layer
    along a last dimension of positions.
    """
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 12, (1, 3), groups=4),
        nn.Conv2d(12, 6, 3, dilation=2),
        nn.Flatten(2),
        nn.Linear(24, 7),
        nn.Conv1d(6, 4, 3, stride=2),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


@pytest.mark.parametrize(("width", "in_channels", "classes"), WIDTHS)
def test_parameters_of_the_convnet_by_closed_form(width, in_channels, classes):
    convolutions = 9 * in_channels * width + 279 * width**2
    norms = 28 * width
    hidden = 48 * width**2 + 12 * width
    classifier = 12 * width * classes + classes
    model = toys.convnet(width, in_channels, classes)
    assert counting.parameters(model) == convolutions + norms + hidden + classifier
    weights = convolutions + 48 * width**2 + 12 * width * classes
    assert counting.prunable_weights(model) == weights


def test_the_course_network_has_its_size():
    mebibytes = counting.parameters(toys.convnet(32, 3, 10)) * 4 / 2**20
    assert 1.25 < mebibytes < 1.37


@pytest.mark.parametrize(("width", "in_channels", "classes"), WIDTHS)
@pytest.mark.parametrize(("height", "breadth"), [(8, 8), (12, 4)])
def test_multiply_adds_of_the_convnet_by_closed_form(width, in_channels, classes, height, breadth):
    pixels = height * breadth
    expected = (
        9 * (in_channels * width + width**2) * pixels
        + 9 * 6 * width**2 * pixels // 4
        + 9 * 24 * width**2 * pixels // 16
        + 48 * width**2
        + 12 * width * classes
    )
    model = toys.convnet(width, in_channels, classes)
    assert counting.multiply_adds(model, (in_channels, height, breadth)) == expected


@pytest.mark.parametrize(
    ("model", "image_shape"),
    [
        (toys.convnet(), (1, 8, 8)),
        (toys.convnet(6, 3), (3, 10, 7)),
        (odd_network(), (3, 16, 24)),
    ],
)
def test_multiply_adds_are_half_of_torchs_flops(model, image_shape):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *image_shape))
    assert counting.multiply_adds(model, image_shape) == counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("layer", "positions"),
    [("conv1", 64), ("conv3", 16), ("conv6", 4), ("hidden", 1), ("classifier", 1)],
)
def test_a_mask_saves_its_zeros_times_the_positions(layer, positions):
    model = toys.lived_in(toys.convnet())
    found = masks.layer_magnitude(masks.prunable(model), f"{layer}.weight", 0.6)
    gone = int((~found[f"{layer}.weight"]).sum())
    pruned = masks.masked(model, found)
    for count, each in (
        (lambda network: counting.multiply_adds(network, (1, 8, 8)), positions),
        (counting.nonzero_weights, 1),
        (counting.nonzero_parameters, 1),
    ):
        assert count(model) - count(pruned) == gone * each


def test_zeros_count_as_parameters_but_not_as_nonzero():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    layer.bias.data = torch.tensor([0.0, 3.0])
    assert counting.parameters(layer) == 6
    assert counting.nonzero_parameters(layer) == 3
    assert counting.nonzero_weights(layer) == 2


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back(training):
    model = toys.convnet().train(training)
    counting.multiply_adds(model, (1, 8, 8))
    assert all(module.training is training for module in model.modules())


def test_mode_and_hooks_come_back_after_a_failure():
    model = toys.convnet().train()
    with pytest.raises(RuntimeError):
        counting.multiply_adds(model, (5, 8, 8))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_counting_leaves_no_trace_in_the_network():
    model, untouched = toys.convnet().train(), toys.convnet()
    counting.multiply_adds(model, (1, 8, 8))
    assert toys.same_state(model, untouched)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_of_the_network_does_not_matter(dtype):
    expected = counting.multiply_adds(toys.convnet(), (1, 8, 8))
    assert counting.multiply_adds(toys.convnet().to(dtype), (1, 8, 8)) == expected
