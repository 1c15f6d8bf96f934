"""torchvision's families of image classifiers: three classes, tiny images, random weights."""

import torch
import torchvision
from torch import nn

from tests import toys

FAMILIES = [
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "regnet_y_400mf", "densenet121",
    "googlenet", "inception_v3", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small",
    "mnasnet0_5", "efficientnet_b0", "shufflenet_v2_x0_5", "convnext_tiny", "vit_b_16", "swin_t",
]  # fmt: skip
# Pixels a side: 32, where a network does not need more.
SIZES = {"alexnet": 64, "inception_v3": 75}
INCEPTION = {"aux_logits": False, "init_weights": False}
OPTIONS = {"googlenet": INCEPTION, "inception_v3": INCEPTION, "vit_b_16": {"image_size": 32}}
# A classifier for 1000 classes of large images is most of these networks: three classes want less.
HIDDEN = 64


def build(name: str) -> nn.Module:
    """The family's smallest network, every parameter and statistic at random (always the same)."""
    torch.manual_seed(0)
    make = getattr(torchvision.models, name)
    model = make(weights=None, num_classes=3, **OPTIONS.get(name, {}))
    if name in ("alexnet", "vgg11_bn"):
        first, second, last = (
            index for index, layer in enumerate(model.classifier) if isinstance(layer, nn.Linear)
        )
        model.classifier[first] = nn.Linear(model.classifier[first].in_features, HIDDEN)
        model.classifier[second] = nn.Linear(HIDDEN, HIDDEN)
        model.classifier[last] = nn.Linear(HIDDEN, 3)
    return toys.lived_in(model)


def shape(name: str) -> tuple[int, int, int]:
    """(channels, height, width) of its images."""
    return (3, SIZES.get(name, 32), SIZES.get(name, 32))
