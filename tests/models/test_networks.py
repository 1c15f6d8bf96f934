"""Networks by name: the catalogue, small ResNets, torchvision's fitted to the data, the check."""

import pytest
import torch
import torchvision

from stages.lib.core import network_names
from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, network_check
from stages.lib.models import prunable, registry, resnet, torchvision_models
from tests import toys


def test_the_catalogue_holds_torchvisions_classifiers():
    assert sorted(network_names.TORCHVISION) == torchvision.models.list_models(torchvision.models)
    assert len(set(network_names.NAMES)) == len(network_names.NAMES)


# He et al. (2016), table 6: 0.27 and 0.85 million parameters, with shortcuts that have none. The
# MACs at 32×32 pixels are those of the pruning literature.
SHORTCUTS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
SHORTCUT_MACS = 16 * 32 * 16**2 + 32 * 64 * 8**2


@pytest.mark.parametrize(
    ("depth", "parameters", "million_macs"), [(20, 269_722, 40.55), (56, 853_018, 125.49)]
)
def test_sizes_are_the_papers_and_those_of_the_shortcuts(depth, parameters, million_macs):
    model = resnet.ResNet(depth, 3, 10)
    assert counting.parameters(model) == parameters + SHORTCUTS
    macs = counting.macs(model, (3, 32, 32)) - SHORTCUT_MACS
    assert round(macs / 1e6, 2) == million_macs
    # The depth counts the weighted layers beside the two shortcuts.
    layers = list(prunable.layers(model))
    assert len(layers) == depth + 2
    assert len([name for name in layers if "shortcut" in name]) == 2


def test_another_depth_is_refused():
    for depth in (0, 2, 18, 21, -4):
        with pytest.raises(ValueError, match="6n"):
            resnet.ResNet(depth, 3, 10)


@pytest.mark.parametrize("size", [(1, 1), (4, 9), (13, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_give_a_logit_per_class(size, channels):
    images = toys.noise(2, (channels, *size))
    assert resnet.ResNet(8, channels, 5).eval()(images).shape == (2, 5)
    if min(size) >= 4:
        assert toys.convnet(in_channels=channels, classes=5).eval()(images).shape == (2, 5)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "googlenet", "vit_b_32"])
def test_torchvisions_networks_get_the_datas_channels_and_classes(name):
    description = registry.architecture(name, 16, 1, 5, (32, 32))
    assert description == {
        "name": name, "in_channels": 1, "image_size": [32, 32], "classes": 5,
    }  # fmt: skip
    model = registry.build_seeded(description, 0)
    network_check.examine(model, (1, 32, 32), 5, name)
    first = torchvision_models.first_convolution(model)
    changed = model.get_submodule(first)
    original = torchvision_models.build(name, 3, (32, 32), 5).get_submodule(first)
    assert changed.in_channels == 1
    for key in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(changed, key) == getattr(original, key)
    assert (changed.bias is None) == (original.bias is None)
    assert not any("aux" in layer.lower() for layer, _ in model.named_modules())
    # No auxiliary logits while training.
    assert model.train()(toys.noise(2, (1, 32, 32))).shape == (2, 5)


def test_for_three_channels_the_network_is_torchvisions_own():
    torch.manual_seed(3)
    ours = torchvision_models.build("resnet18", 3, (32, 32), 4)
    torch.manual_seed(3)
    assert toys.same_state(ours, torchvision.models.resnet18(num_classes=4))


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("vit_b_16", (40, 40), "40 is not a multiple of 16, the patch of vit_b_16"),
        ("vit_h_14", (32, 32), "32 is not a multiple of 14"),
        ("maxvit_t", (64, 32), "maxvit_t takes square images only"),
        ("maxvit_t", (50, 50), "maxvit_t cannot be built for images of 50 pixels"),
    ],
)
def test_an_image_size_that_a_transformer_cannot_take_is_refused(name, size, words):
    with pytest.raises(UserError, match=r"data\.image_size") as caught:
        torchvision_models.build(name, 3, size, 5)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
