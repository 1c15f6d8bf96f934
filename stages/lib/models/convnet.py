"""The course's VGG-like ConvNet: three pairs of 3×3 convolutions and one hidden layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

CONVOLUTIONS = 6


class ConvNet(nn.Module):
    """Six times convolution, batch norm and ReLU; the image is halved after the second and the
    fourth. Then global average pooling, a hidden layer and the classifier.

    Input: float [n, in_channels, height, width], both sides at least 4. Output: logits
    [n, classes].

    channels: the filters of each convolution.
    hidden: the units of the hidden layer.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], hidden: int, classes: int
    ) -> None:
        super().__init__()
        if len(channels) != CONVOLUTIONS:
            raise ValueError(f"channels: {len(channels)} given, {CONVOLUTIONS} wanted")
        layers: dict[str, nn.Module] = {}
        for index, width in enumerate(channels, start=1):
            layers[f"conv{index}"] = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
            layers[f"norm{index}"] = nn.BatchNorm2d(width)
            layers[f"relu{index}"] = nn.ReLU(inplace=True)
            if index in (2, 4):
                layers[f"pool{index}"] = nn.MaxPool2d(2)
            in_channels = width
        layers["mean"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["hidden"] = nn.Linear(in_channels, hidden)
        layers["relu7"] = nn.ReLU(inplace=True)
        layers["classifier"] = nn.Linear(hidden, classes)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            images = layer(images)
        return images


def sizes(width: int) -> dict[str, Any]:
    """The layer sizes for a `width`.

    With width 32, 3-channel images and 10 classes there are 0.34 M parameters, 1.30 MiB in float32;
    the course's network has 1.31 MiB.
    """
    return {
        "channels": [width, width, 2 * width, 2 * width, 4 * width, 4 * width],
        "hidden": 12 * width,
    }
