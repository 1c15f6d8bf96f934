"""Turns uint8 batches into network inputs: normalized, and for training shifted and mirrored."""

from collections.abc import Sequence

import torch

from stages.lib.core import normalization


class Normalize:
    """Normalizes images: uint8 [n, c, h, w] to float32 on `device`, channels-last.

    mean, std: one number per channel, of images scaled to 0…1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.scale = (1 / (255 * torch.tensor(std))).view(1, -1, 1, 1).to(device)
        self.offset = (-torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1).to(device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.scale.device).contiguous(memory_format=torch.channels_last)
        return images.float() * self.scale + self.offset


def fixed_normalize(name: str, channels: int, device: torch.device) -> Normalize:
    """Normalizes by the constants of `normalization.FIXED`."""
    return Normalize(*normalization.fixed(name, channels), device)


def augment(
    images: torch.Tensor, *, shift: int, mirror: bool, generator: torch.Generator
) -> torch.Tensor:
    """Shifts each image by up to `shift` pixels in each direction, and mirrors half of them.

    images: uint8 [n, c, h, w]. Pixels that a shift uncovers get the colour of the edge. One gather
    moves the whole batch.
    """
    count, _, height, width = images.shape
    device = images.device
    if shift:
        offsets = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator).to(device)
        rows = (torch.arange(height, device=device) + offsets[0] - shift).clamp(0, height - 1)
        columns = (torch.arange(width, device=device) + offsets[1] - shift).clamp(0, width - 1)
        index = torch.arange(count, device=device)
        # This indexing puts the channels last: [n, h, w, c].
        images = images.permute(0, 2, 3, 1)[
            index[:, None, None], rows[:, :, None], columns[:, None, :]
        ].permute(0, 3, 1, 2)
    if mirror:
        flipped = torch.rand(count, generator=generator).to(device) < 0.5
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
    return images
