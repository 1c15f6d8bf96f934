"""Masks units of a network, or removes them: filters with all channels that are coupled to them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from stages.lib.models import prunable
from stages.lib.models.origins import copied
from stages.lib.structured.coupling import OUT, Member, Plan


def _lost(removed: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Which channels of a side are removed, given the units of these channels: bool."""
    # One more, for FIXED.
    return np.append(removed, False)[units]


def weights_left(model: nn.Module, plan: Plan, removed: np.ndarray) -> int:
    """The number of prunable weights without these units (bool [units]), by their shapes alone."""
    weights = prunable.weights(model)
    left = {prunable.layer_of(name): weight.numel() for name, weight in weights.items()}
    # A depthwise convolution has one side only: its filters see one channel each.
    for member in plan.members:
        if member.layer in left:
            stay = len(member.units) - int(_lost(removed, member.units).sum())
            left[member.layer] = left[member.layer] * stay // len(member.units)
    return sum(left.values())


def _losing(
    model: nn.Module, plan: Plan, removed: np.ndarray
) -> Iterator[tuple[Member, nn.Module, list[int]]]:
    """Every side that loses channels with these units, with its layer and these channels."""
    for member in plan.members:
        indices = np.flatnonzero(_lost(removed, member.units)).tolist()
        if indices:
            yield member, model.get_submodule(member.layer), indices


@torch.no_grad()
def _silence(layer: nn.Module, indices: list[int]) -> None:
    """Makes a layer output zeros on these channels, provided that their inputs are zeros."""
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        layer.weight[:, indices] = 0
        if layer.bias is not None:
            layer.bias[indices] = 0
        return
    for parameter in layer.parameters(recurse=False):
        parameter[indices] = 0
    # Without a weight of its own, a batch norm shifts by its mean.
    if getattr(layer, "weight", None) is None and getattr(layer, "running_mean", None) is not None:
        layer.running_mean[indices] = 0


def mask(model: nn.Module, plan: Plan, removed: np.ndarray) -> nn.Module:
    """A copy of the same size in which these units (bool [units]), and what depends only on them,
    output zeros.

    A filter's batch norm is zeroed too, and so is a later one over a concatenation. Otherwise its
    shift would still feed a constant to the next layer.
    """
    masked = copied(model)
    for member, layer, indices in _losing(masked, plan, removed):
        if member.side == OUT:
            _silence(layer, indices)
    return masked


def remove(model: nn.Module, plan: Plan, removed: np.ndarray) -> nn.Module:
    """A copy without these units (bool [units]), in evaluation mode: smaller tensors, and the same
    outputs as the network of `mask`.
    """
    small = copied(model)
    for member, layer, indices in _losing(small, plan, removed):
        member.prune(layer, indices)
    # The smaller parameters are new: freeze those that the user had frozen.
    for name, parameter in model.named_parameters():
        small.get_parameter(name).requires_grad_(parameter.requires_grad)
    return small.eval()
