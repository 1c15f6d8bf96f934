"""The weights of all layers as the rows of one matrix: one operation then serves all layers."""

from collections.abc import Mapping, Sequence

import torch

# Numbers in a row. A layer has whole rows; the last one ends with zeros.
ROW = 1024


def _memory_order(weight: torch.Tensor) -> list[int]:
    """The dimensions of a tensor, slowest first."""
    return sorted(range(weight.dim()), key=lambda dimension: -weight.stride(dimension))


class FlatWeights:
    """The layout of such a matrix, float32 [rows, ROW].

    weights: the tensors that it holds, by name. Their values do not matter.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        device = next(iter(weights.values())).device
        self.names = list(weights)
        self.orders = [_memory_order(weight) for weight in weights.values()]
        self.shapes = [weight.shape for weight in weights.values()]
        lengths = [weight.numel() for weight in weights.values()]
        rows = [-(-length // ROW) for length in lengths]
        self.starts = [ROW * sum(rows[:layer]) for layer in range(len(rows))]
        # int64 [rows]: the layer of each row.
        self.layers = torch.arange(len(rows)).repeat_interleave(torch.tensor(rows)).to(device)
        # float32 [layers, rows]: 1 where a row belongs to a layer.
        self.members = torch.eye(len(rows), device=device)[:, self.layers]
        # int64 [layers]: how many weights a layer has, and how many zeros follow them.
        self.lengths = torch.tensor(lengths, device=device)
        self.padding = ROW * torch.tensor(rows, device=device) - self.lengths
        self.count = sum(lengths)

    def zeros(self) -> torch.Tensor:
        """A matrix of zeros."""
        return torch.zeros(len(self.layers), ROW, device=self.layers.device)

    def views(self, matrix: torch.Tensor) -> list[torch.Tensor]:
        """The weights in a matrix, each in its shape and memory layout, without a copy."""
        numbers = matrix.view(-1)
        parts = []
        for start, shape, order in zip(self.starts, self.shapes, self.orders, strict=True):
            part = numbers[start : start + shape.numel()].view([shape[axis] for axis in order])
            parts.append(part.permute([order.index(axis) for axis in range(len(order))]))
        return parts

    def gathered(self, weights: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The matrix of these weights; zeros for None."""
        matrix = self.zeros()
        for view, weight in zip(self.views(matrix), weights, strict=True):
            if weight is not None:
                view.copy_(weight)
        return matrix

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """A value per layer [layers] as a column [rows, 1]."""
        return values[self.layers][:, None]

    def sums(self, matrix: torch.Tensor) -> torch.Tensor:
        """The sum over each layer's weights, [layers]; always in the same order."""
        return (self.members * matrix.sum(1)).sum(1)

    def largest(self, matrix: torch.Tensor) -> torch.Tensor:
        """The largest of each layer's numbers, none of which is negative, [layers]."""
        return (self.members * matrix.amax(1)).amax(1)
