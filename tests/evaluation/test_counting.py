from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, inference, network_check
from stages.lib.models import prunable, torchvision_models
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from tests import toys


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


@pytest.mark.parametrize(("width", "in_channels", "classes"), [(5, 1, 2), (32, 3, 10)])
def test_parameters_of_the_convnet_by_closed_form(width, in_channels, classes):
    weights = 9 * in_channels * width + (279 + 48) * width**2 + 12 * width * classes
    norms, biases = 28 * width, 12 * width + classes
    model = toys.convnet(width, in_channels, classes)
    assert counting.prunable_weights(model) == weights
    assert counting.parameters(model) == weights + norms + biases
    # The course's network has 1.31 MiB.
    assert width < 32 or 1.25 < counting.parameters(model) * 4 / 2**20 < 1.37


@pytest.mark.parametrize(
    ("model", "image_shape"),
    [
        (toys.convnet(6, 3), (3, 10, 7)),
        (torchvision_models.build("mobilenet_v3_small", 3, (32, 32), 3), (3, 32, 32)),
        (odd_network(), (3, 16, 24)),
    ],
)
def test_macs_are_half_of_torchs_flops(model, image_shape):
    toys.lived_in(model)  # a random weight may be exactly 0; torch would count it
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *image_shape))
    assert counting.macs(model, image_shape) == counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("layer", "positions"),
    [("conv1", 64), ("conv3", 16), ("conv6", 4), ("hidden", 1)],
)
def test_a_mask_saves_its_zeros_times_the_positions(layer, positions):
    model = toys.lived_in(toys.convnet())
    found = masks.per_layer(magnitude.scores(model), {f"{layer}.weight": 0.6})
    gone = int((~found[f"{layer}.weight"]).sum())
    pruned = masks.masked(model, found)
    for count, each in (
        (lambda network: counting.macs(network, (1, 8, 8)), positions),
        (counting.nonzero_weights, 1),
        (counting.nonzero_parameters, 1),
    ):
        assert count(model) - count(pruned) == gone * each


def check(model, image_shape):
    network_check.examine(model, image_shape, 3, "net")


def predict(model, image_shape):
    inference.predict(model, toys.samples(torch.ones(2, *image_shape), torch.zeros(2)))


@pytest.mark.parametrize("use", [counting.macs, check, predict])
@pytest.mark.parametrize("channels", [1, 5])
def test_using_a_network_leaves_no_trace_in_it_even_where_that_fails(use, channels):
    model, untouched = toys.convnet().train(), toys.convnet()
    model.norm3.eval()
    model.conv1.weight.requires_grad_(False)
    with nullcontext() if channels == 1 else pytest.raises((RuntimeError, UserError)):
        use(model, (channels, 8, 8))
    assert toys.same_state(model, untouched)
    assert [name for name, module in model.named_modules() if not module.training] == ["norm3"]
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert frozen == ["conv1.weight"]


def encoder(kind):
    """Patches as tokens; attention batch-first or not, or torch's whole layer around it."""
    first = kind != "tokens first"

    def answer(net, images):
        tokens = net.embed(images).flatten(2).transpose(1, 2)
        tokens = tokens if first else tokens.transpose(0, 1)
        tokens = net.mix(tokens) if kind == "layer" else net.mix(tokens, tokens, tokens)[0]
        return net.classifier(tokens.mean(1 if first else 0))

    if kind == "layer":
        mix = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    else:
        mix = nn.MultiheadAttention(8, 2, batch_first=first)
    return toys.Net(
        answer, embed=nn.Conv2d(1, 8, 2, stride=2), mix=mix, unused=nn.Linear(8, 8),
        classifier=nn.Linear(8, 3),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["batch first", "tokens first", "layer"])
def test_attentions_projections_are_used_once_per_token(kind):
    found = counting.positions(encoder(kind), (1, 8, 8))
    mix = "mix.self_attn" if kind == "layer" else "mix"
    expected = {
        "embed.weight": 16,
        f"{mix}.in_proj_weight": 16,
        f"{mix}.out_proj.weight": 16,
        "unused.weight": 0,
        "classifier.weight": 1,
    }
    if kind == "layer":
        expected |= {"mix.linear1.weight": 16, "mix.linear2.weight": 16}
    assert found == expected


def test_a_weight_that_two_layers_share_is_used_by_both():
    network = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3), nn.Flatten(),
        nn.Linear(4, 4), nn.Linear(4, 4),
    )  # fmt: skip
    network[2].weight = network[0].weight
    network[5] = network[4]
    assert counting.positions(network, (1, 8, 8)) == {"0.weight": 64 + 4, "4.weight": 2}


def test_the_number_of_images_does_not_matter_to_a_network_that_folds_them():
    def answer(net, images):
        windows = images.unflatten(2, (2, 4)).transpose(1, 2).flatten(0, 1)
        means = net.conv(windows).mean((2, 3))
        return net.classifier(means.unflatten(0, (len(images), 2)).mean(1))

    windows = toys.Net(answer, conv=nn.Conv2d(1, 2, 3, padding=1), classifier=nn.Linear(2, 3))
    expected = {"conv.weight": 64, "classifier.weight": 1}
    assert counting.positions(windows, (1, 8, 8)) == expected


def test_a_weight_used_without_calling_its_layer_counts_as_used():
    def answer(net, images):
        images = nn.functional.conv2d(images, weight=net.conv.weight, padding=1)
        return nn.functional.linear(images.flatten(1), net.fc.weight)

    functions = toys.Net(answer, conv=nn.Conv2d(1, 2, 3, padding=1), fc=nn.Linear(128, 3))
    expected = {"conv.weight": 64, "fc.weight": 1}
    assert counting.positions(functions, (1, 8, 8)) == expected
    # As in torchvision's Swin transformer.
    swin = torchvision_models.build("swin_t", 3, (32, 32), 3)
    used = counting.positions(swin, (3, 32, 32))
    assert all(used[name] for name in prunable.weights(swin))
