"""ResNet for small images (He et al., Deep Residual Learning, 2016, section 4.2): three stages of
16, 32 and 64 filters, 6n + 2 layers deep.

One deviation: when a stage halves the image, the shortcut is a 1×1 convolution with batch norm, not
padding with zeros, so that its filters can be removed. That adds 2,752 parameters.
"""

import torch
from torch import nn

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3×3 convolutions and the shortcut around them."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.add_module(
                "conv", nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            )
            self.shortcut.add_module("norm", nn.BatchNorm2d(channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norm1(self.conv1(images)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(images))


class ResNet(nn.Module):
    """Input: float [n, in_channels, height, width], both sides at least 1. Output: logits
    [n, classes].

    depth: 6n + 2 with n ≥ 1 (20, 56), else ValueError.
    """

    def __init__(self, depth: int, in_channels: int, classes: int) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth: {depth} is not 6n + 2")
        self.stem = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        channels = WIDTHS[0]
        for number, width in enumerate(WIDTHS, start=1):
            blocks = []
            for index in range(depth // 6):
                blocks.append(Block(channels, width, stride=1 if number == 1 or index else 2))
                channels = width
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = torch.relu(self.norm(self.stem(images)))
        images = self.stage3(self.stage2(self.stage1(images)))
        return self.classifier(self.mean(images).flatten(1))
