"""Networks by name: the catalogue, small ResNets, torchvision's fitted to the data, the check."""

import pytest
import torch
import torchvision
from torch import nn

from stages.lib.core import network_names
from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting
from stages.lib.models import prunable, registry, resnet, torchvision_models
from tests import toys


def shapes(model, modules, image_shape):
    """The shapes, without the images, of what each of the modules puts out."""
    found = []
    for module in modules:
        module.register_forward_hook(lambda *call: found.append(tuple(call[2].shape[1:])))
    model(toys.noise(1, image_shape))
    return found


def test_the_catalogue_holds_torchvisions_classifiers():
    assert sorted(network_names.TORCHVISION) == torchvision.models.list_models(torchvision.models)
    assert len(set(network_names.NAMES)) == len(network_names.NAMES)


# He et al. (2016), table 6: 0.27 and 0.85 million parameters, with shortcuts that have none.
SHORTCUTS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize(("depth", "published"), [(20, 269_722), (56, 853_018)])
def test_parameters_are_the_papers_and_those_of_the_shortcuts(depth, published):
    model = resnet.ResNet(depth, 3, 10)
    assert counting.parameters(model) == published + SHORTCUTS
    # The depth counts the weighted layers beside the two shortcuts.
    layers = list(prunable.layers(model))
    assert len(layers) == depth + 2
    assert len([name for name in layers if "shortcut" in name]) == 2


@pytest.mark.parametrize("depth", [0, 2, 18, 21, -4])
def test_another_depth_is_refused(depth):
    with pytest.raises(ValueError, match="6n"):
        resnet.ResNet(depth, 3, 10)


@pytest.mark.parametrize("size", [(1, 1), (4, 9), (13, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_give_a_logit_per_class(size, channels):
    images = toys.noise(2, (channels, *size))
    assert resnet.ResNet(8, channels, 5).eval()(images).shape == (2, 5)
    if min(size) >= 4:
        assert toys.convnet(in_channels=channels, classes=5).eval()(images).shape == (2, 5)


def test_each_network_halves_the_image_where_it_says():
    convnet, small_resnet = toys.convnet().eval(), resnet.ResNet(20, 1, 3).eval()
    convolutions = [convnet.get_submodule(f"conv{index}") for index in range(1, 7)]
    sizes = [shape[1:] for shape in shapes(convnet, convolutions, (1, 8, 12))]
    assert sizes == [(8, 12), (8, 12), (4, 6), (4, 6), (2, 3), (2, 3)]
    stages = [small_resnet.stage1, small_resnet.stage2, small_resnet.stage3]
    assert shapes(small_resnet, stages, (1, 16, 12)) == [(16, 16, 12), (32, 8, 6), (64, 4, 3)]


@pytest.mark.parametrize(
    ("name", "side"),
    [("mobilenet_v3_small", 32), ("squeezenet1_1", 32), ("googlenet", 32), ("vit_b_32", 32)],
)
def test_torchvisions_networks_get_the_datas_channels_and_classes(name, side):
    description = registry.architecture(name, 16, 1, 5, (side, side))
    assert description == {
        "name": name, "in_channels": 1, "image_size": [side, side], "classes": 5,
    }  # fmt: skip
    model = registry.build_seeded(description, 0)
    registry.check(model, (1, side, side), 5)
    first = torchvision_models.first_convolution(model)
    changed = model.get_submodule(first)
    original = torchvision_models.build(name, 3, (side, side), 5).get_submodule(first)
    assert changed.in_channels == 1
    for key in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(changed, key) == getattr(original, key)
    assert (changed.bias is None) == (original.bias is None)
    assert not any("aux" in layer.lower() for layer, _ in model.named_modules())
    # No auxiliary logits while training.
    assert model.train()(toys.noise(2, (1, side, side))).shape == (2, 5)


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


def answering(answer):
    """Answers with what `answer` makes of the logits."""
    return toys.Net(lambda net, images: answer(net.fc(images.flatten(1))), fc=nn.Linear(64, 3))


def complaint(model, image_shape=(1, 8, 8), classes=3):
    model._unpruned = registry.Unpruned({"name": "net.py:make"}, {})
    with pytest.raises(UserError) as caught:
        registry.check(model, image_shape, classes)
    assert str(caught.value).startswith("model.name: net.py:make ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "got", "remedy"),
    [
        (lambda logits: logits[:, :2], "[2, 2]", "let the factory take num_classes"),
        (lambda logits: logits.sum(), "[]", "let the factory take num_classes"),
        (lambda logits: (logits, logits), "a tuple", "return the logits alone"),
        (lambda logits: None, "a NoneType", "return the logits alone"),
    ],
)
def test_an_answer_that_is_no_logit_per_class_is_refused(answer, got, remedy):
    text = complaint(answering(answer))
    assert f"answers two images with {got} where a tensor [2, 3] is wanted, " in text
    assert text.endswith(remedy)


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 8, 8)])
def test_images_that_do_not_fit_are_told_with_their_shape(shape):
    text = complaint(answering(lambda logits: logits), shape)
    assert f"cannot take images of {'×'.join(map(str, shape))} (" in text
    assert "set data.image_size" in text


@pytest.mark.parametrize("error", [StopIteration(), KeyError("x"), ValueError("a\nb")])
def test_whatever_a_network_raises_is_told(error):
    def fail(_):
        raise error

    assert "cannot take images of 1×8×8" in complaint(answering(fail))


def test_a_network_without_parameters_is_refused():
    assert "has no parameters" in complaint(nn.Flatten())


def test_the_check_runs_in_evaluation_mode():
    # Batch norm cannot train on one value per channel, as here with images of 1×1.
    registry.check(registry.build(registry.architecture("resnet20", 4, 1, 3)), (1, 1, 1), 3)
