"""Taking filters out of a network, with all that falls with them: masked, or physically removed."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.models import prunable
from stages.lib.structured.coupling import IN, OUT, Plan

# Indices of filters, by the layer's name.
Filters = dict[str, list[int]]


def slots_of(plan: Plan, filters: Mapping[str, list[int]]) -> np.ndarray:
    """bool [slots]: those that the named filters take with them.

    Raises UserError where a layer is refused, or would be left without any filter.
    """
    gone = np.zeros(len(plan.sets), dtype=bool)
    for name, indices in filters.items():
        if name not in plan.filters or name in plan.refused:
            reason = plan.refused.get(name, "no such layer")
            raise UserError(f"layer {name} cannot lose filters: {reason}")
        gone[plan.filters[name][indices]] = True
    kept = np.append(~gone, True)
    for name, slots in plan.filters.items():
        if not kept[slots].any():
            raise UserError(f"removing {len(slots)} filters leaves layer {name} without any")
    for member in plan.members:
        if not kept[member.slots].any():
            raise UserError(f"removing these filters leaves layer {member.layer} without inputs")
    return gone


def of_slots(plan: Plan, gone: np.ndarray) -> Filters:
    """The filters of all layers that go with these slots (bool [slots])."""
    lost = {name: np.flatnonzero(gone[slots]).tolist() for name, slots in plan.filters.items()}
    return {name: indices for name, indices in lost.items() if indices}


class Weights:
    """Counts the prunable weights that are left without building the small network: outputs ×
    inputs × kernel of each layer.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        sides = {(member.layer, member.side): member.slots for member in plan.members}
        self.layers = []
        for parameter, weight in prunable.weights(model).items():
            name = parameter.removesuffix(".weight")
            # A depthwise convolution has one side only: its filters see one channel each.
            own = [sides[name, side] for side in (OUT, IN) if (name, side) in sides]
            self.layers.append((weight.numel(), own))

    def left(self, gone: np.ndarray) -> int:
        """Prunable weights of the network without these slots (bool [slots])."""
        kept = np.append(~gone, True)
        total = 0
        for count, sides in self.layers:
            for slots in sides:
                count = count * int(kept[slots].sum()) // len(slots)
            total += count
        return total


@torch.no_grad()
def _silence(layer: nn.Module, indices: list[int]) -> None:
    """Sets what a layer puts out on these channels to zero, given that they come in as zeros."""
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


def mask(model: nn.Module, plan: Plan, filters: Mapping[str, list[int]]) -> nn.Module:
    """A copy of the same size in which the filters, and what they alone feed, put out zeros.

    A filter's batch norm is zeroed with it, and so is a later one over a concatenation: its shift
    would else go on feeding a constant.
    """
    gone = np.append(slots_of(plan, filters), False)
    masked = copy.deepcopy(model)
    for member in plan.members:
        indices = np.flatnonzero(gone[member.slots]).tolist()
        if member.side == OUT and indices:
            _silence(masked.get_submodule(member.layer), indices)
    return masked


def remove(model: nn.Module, plan: Plan, filters: Mapping[str, list[int]]) -> nn.Module:
    """A copy without the filters, in evaluation mode: smaller tensors, and the outputs of `mask`'s
    network.
    """
    gone = np.append(slots_of(plan, filters), False)
    small = copy.deepcopy(model)
    for member in plan.members:
        indices = np.flatnonzero(gone[member.slots]).tolist()
        if indices:
            member.prune(small.get_submodule(member.layer), indices)
    # The smaller parameters are new ones: those that the user froze stay frozen.
    for name, parameter in model.named_parameters():
        small.get_parameter(name).requires_grad_(parameter.requires_grad)
    return small.eval()
