"""torchvision's families of image classifiers: three classes, tiny images, random weights."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision
from torch import nn

from tests import toys


@dataclass(frozen=True)
class Family:
    """size: of the images, in pixels; options: for torchvision's function."""

    size: int = 32
    options: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "alexnet": Family(size=64),
    "vgg11_bn": Family(),
    "resnet18": Family(),
    "resnext50_32x4d": Family(),
    "regnet_y_400mf": Family(),
    "densenet121": Family(),
    "googlenet": Family(options={"aux_logits": False, "init_weights": False}),
    "inception_v3": Family(size=75, options={"aux_logits": False, "init_weights": False}),
    "squeezenet1_1": Family(),
    "mobilenet_v2": Family(),
    "mobilenet_v3_small": Family(),
    "mnasnet0_5": Family(),
    "efficientnet_b0": Family(),
    "shufflenet_v2_x0_5": Family(),
    "convnext_tiny": Family(),
    "vit_b_16": Family(options={"image_size": 32}),
    "swin_t": Family(),
}
# A classifier for 1000 classes of large images is most of these networks: three classes want less.
HIDDEN = 64


def build(name: str) -> nn.Module:
    """The family's smallest network, every parameter and statistic at random (always the same)."""
    torch.manual_seed(0)
    make = getattr(torchvision.models, name)
    model = make(weights=None, num_classes=3, **FAMILIES[name].options)
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
    return (3, FAMILIES[name].size, FAMILIES[name].size)
