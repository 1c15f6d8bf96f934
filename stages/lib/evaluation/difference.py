"""How much the logits of two networks differ."""

import copy

import torch
from torch import nn

# The divisor if all logits are zero.
SMALLEST = torch.finfo(torch.float64).tiny


def largest(one: nn.Module, other: nn.Module, batch: torch.Tensor) -> float:
    """The largest difference of any logit, divided by the largest logit; 0 for equal networks.

    Both compute in float64 if they can, so that rounding in deep networks does not look like a
    difference. batch: float [n, channels, height, width].
    """
    first, second = (_logits(network, batch) for network in (one, other))
    if first.shape != second.shape:
        return float("inf")
    return float((first - second).abs().max() / first.abs().max().clamp_min(SMALLEST))


@torch.inference_mode()
def _logits(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    try:
        return copy.deepcopy(network).double().eval()(batch.double())
    except RuntimeError:  # a network that works in its own type only
        return copy.deepcopy(network).eval()(batch).double()
