"""Ranks filters by their L1 norm and chooses the lowest for removal (Li et al., Pruning Filters for
Efficient ConvNets, ICLR 2017).
"""

import bisect
from collections.abc import Iterator

import numpy as np
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.models import prunable
from stages.lib.structured import coupling, removal
from stages.lib.structured.coupling import Plan


def positions(groups: np.ndarray) -> np.ndarray:
    """The number of earlier equal entries: [3, 5, 3, 3] → [0, 0, 1, 2]."""
    order = np.argsort(groups, kind="stable")
    result = np.empty_like(order)
    result[order] = np.arange(len(order)) - np.searchsorted(groups[order], groups[order])
    return result


def scores(model: nn.Module, plan: Plan, scope: str) -> np.ndarray:
    """The score of each unit, float64 [units]. The lowest is removed first.

    scope: "global": the L1 norm of the unit's filters divided by their layer's mean, so that layers
        with larger kernels have no advantage (after Molchanov et al., 2017), averaged over the
        layers in which the unit has filters. "layer": the rank of that score within the coupled
        group, 0…1, so that all groups lose the same share.
    """
    total, producers = np.zeros(len(plan.groups)), np.zeros(len(plan.groups))
    for name, units in plan.filters.items():
        weight = model.get_submodule(name).weight.detach()
        norms = weight.abs().flatten(1).double().sum(1).cpu().numpy()
        used = np.unique(units)
        summed = np.bincount(units, norms, minlength=len(total))[used]
        total[used] += summed / max(summed.mean(), np.finfo(float).tiny)
        producers[used] += 1
    relative = total / np.maximum(producers, 1)
    return relative if scope == "global" else ranks(relative, plan.groups)


def ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The rank of each value within its group, as a share of the group's size, in (0, 1)."""
    order = np.argsort(values, kind="stable")
    result = np.empty(len(values))
    result[order] = (positions(groups[order]) + 0.5) / np.bincount(groups)[groups[order]]
    return result


def removable(plan: Plan, scores: np.ndarray) -> Iterator[int]:
    """The allowed units, lowest score first, ties in the network's order. A unit is skipped if it
    is the last of a layer's side when its turn comes.
    """
    left = np.array([len(member.units) for member in plan.members])
    # How many channels each side loses with a unit: int [units, sides].
    losses = np.zeros((len(plan.groups), len(plan.members)), dtype=np.int32)
    for side, member in enumerate(plan.members):
        np.add.at(losses[:, side], member.units[member.units >= 0], 1)
    allowed = plan.allowed
    for unit in np.argsort(scores, kind="stable").tolist():
        loss = losses[unit]
        if allowed[unit] and ((loss == 0) | (left > loss)).all():
            left -= loss
            yield unit


def choose(
    model: nn.Module, plan: Plan, sparsity: float, scope: str, multiple: int = 1
) -> np.ndarray:
    """The units with the lowest scores whose removal comes nearest to `sparsity`, the share of
    prunable weights that are removed (0 < sparsity < 1): bool [units]. The last filter of a layer
    stays.

    multiple: a layer that loses filters keeps a multiple of this number, because kernels compute
        channels in blocks.

    Raises UserError if that removes nothing, or if too much is refused to reach the sparsity.
    """
    whole = sum(weight.numel() for weight in prunable.weights(model).values())
    order = np.array(list(removable(plan, scores(model, plan, scope))), dtype=np.int64)
    groups, sizes = plan.groups[order], np.bincount(plan.groups)
    position = positions(groups)
    setting = f"sparsity {sparsity:g} with scope {scope}"
    if multiple > 1:
        setting += f" and widths that are multiples of {multiple}"

    def first(count: int) -> np.ndarray:
        """The first `count` removable units without those that `multiple` keeps: bool [units]."""
        left = sizes - np.bincount(groups[:count], minlength=len(sizes))
        lost = np.maximum(sizes - -(-left // multiple) * multiple, 0)
        removed = np.zeros(len(plan.groups), dtype=bool)
        removed[order] = position < lost[groups]
        return removed

    def reached(count: int) -> float:
        return 1 - removal.weights_left(model, plan, first(count)) / whole

    if reached(len(order)) < sparsity:
        raise UserError(
            f"{setting} cannot be reached: {reached(len(order)):.4f} is the most, {limits(plan)}"
        )
    # Removing one more never adds weights.
    enough = bisect.bisect_left(range(len(order) + 1), sparsity, key=reached)
    nearest = min(enough - 1, enough, key=lambda count: abs(reached(count) - sparsity))
    if reached(nearest) == 0:
        raise UserError(
            f"{setting} would remove nothing at all: the first step is {reached(enough):.3g} of"
            " the weights; raise it, or widen the network"
        )
    return first(nearest)


def limits(plan: Plan) -> str:
    """What keeps a network from becoming smaller, as part of a sentence."""
    refused = {name: reason for name, reason in plan.refused.items() if reason != coupling.CLASSES}
    stays = "as one filter stays in each layer"
    if not refused:
        return f"{stays}; lower it, or widen the network"
    name, reason = next(iter(refused.items()))
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return f"{stays} and layers are refused: {name} ({reason}){more}; lower it"
