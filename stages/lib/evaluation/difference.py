"""How much the logits of two networks differ."""

import torch
from torch import nn

from stages.lib.models.origins import copied

# The divisor if all logits are zero.
SMALLEST = torch.finfo(torch.float64).tiny


def largest(first: nn.Module, second: nn.Module, batch: torch.Tensor) -> float:
    """The largest difference of any logit, divided by the largest logit; 0 for equal networks.

    Both compute in float64 if they can, so that rounding in deep networks does not look like a
    difference. batch: float [n, channels, height, width].
    """
    logits, others = _logits(first, batch), _logits(second, batch)
    if logits.shape != others.shape:
        return float("inf")
    return float((logits - others).abs().max() / logits.abs().max().clamp_min(SMALLEST))


@torch.no_grad()
def _logits(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    # Each reads a copy: a network may write into its images.
    try:
        return copied(network).double().eval()(batch.double().clone())
    except Exception:  # noqa: BLE001 - a network that works in its own type only
        return copied(network).eval()(batch.clone()).double()
