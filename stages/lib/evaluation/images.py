"""Turns uint8 batches into network inputs: normalized, and for training shifted and mirrored."""

from collections.abc import Sequence

import torch

from stages.lib.core import normalization


class Normalize:
    """Normalizes images: uint8 [n, c, h, w] to float32 on `device`, in a memory layout.

    mean, std: one number per channel, of images scaled to 0…1.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self.layout = layout
        self.statistics = {"mean": [*mean], "std": [*std]}
        self.scale = (1 / (255 * torch.tensor(std))).view(1, -1, 1, 1).to(device)
        self.offset = (-torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1).to(device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.scale.device).contiguous(memory_format=self.layout)
        return images.float() * self.scale + self.offset


def fixed_normalize(name: str, channels: int, device: torch.device) -> Normalize:
    """Normalizes by the constants of `normalization.FIXED`."""
    return Normalize(*normalization.fixed(name, channels), device)


def moves(count: int, *, shift: int, mirror: bool, generator: torch.Generator) -> torch.Tensor:
    """Draws how each of `count` images is moved: int64 [3, count], on the CPU. The rows are the
    shift down and to the right, each −shift…shift, and whether the image is mirrored.
    """
    drawn = torch.zeros(3, count, dtype=torch.int64)
    if shift:
        drawn[:2] = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)[..., 0]
        drawn[:2] -= shift
    if mirror:
        drawn[2] = torch.rand(count, generator=generator) < 0.5
    return drawn


def moved(images: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Shifts and mirrors each image. One gather moves the whole batch.

    images: uint8 [n, c, h, w].
    moves: of the function `moves`, on the same device. Pixels that a shift uncovers get the colour
        of the edge.
    """
    count, _, height, width = images.shape
    down, right, mirrored = moves.to(images.device)[:, :, None]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    rows = (rows + down).clamp(0, height - 1)
    columns = torch.where(mirrored > 0, columns.flip(0), columns)
    columns = (columns + right).clamp(0, width - 1)
    index = torch.arange(count, device=images.device)
    # This indexing puts the channels last: [n, h, w, c].
    return images.permute(0, 2, 3, 1)[
        index[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)
