"""Finds out what can be removed from a network: traces it, then removes some on trial."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from stages.lib.core import errors
from stages.lib.core.errors import UserError
from stages.lib.evaluation import difference
from stages.lib.models import prunable
from stages.lib.models.origins import copied
from stages.lib.structured import coupling, ranking, removal
from stages.lib.structured.coupling import Plan

# Of the trial, relative to the largest logit. Rounding stays far below, errors lie far above.
TOLERANCE = 1e-4


def analyse(model: nn.Module, image_shape: Sequence[int]) -> Plan:
    """Finds out what can be removed from the network: traces it, then tries.

    The trial removes a third of the filters of all coupled groups from a copy with random weights,
    and compares it with the masked copy. If they differ, or the small network fails, the groups
    that cause it are found by bisection and refused. The given network is not changed, and its
    weights do not matter.

    image_shape: (channels, height, width).

    Raises UserError if the network cannot be traced, or nothing in it can be removed.
    """
    plan = coupling.couple(model, image_shape)
    plan = dataclasses.replace(plan, refusals=plan.refusals | _failing(model, plan, image_shape))
    if not plan.allowed.any():
        reasons = [f"{name}: {reason}" for name, reason in plan.refused.items()]
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        shown = "; ".join(reasons[:3]) + more
        raise UserError(f"no layer of the network can lose filters ({shown or 'it has none'})")
    return plan


def table(model: nn.Module, plan: Plan) -> list[dict]:
    """A line of records.PRUNED_LAYER for each prunable layer."""
    layers = prunable.layers(model)
    lines = []
    for parameter, weight in prunable.weights(model).items():
        name = prunable.layer_of(parameter)
        reason = plan.refused.get(name, "") if name in layers else coupling.HEADS
        lines.append(
            {
                "layer": name,
                "filters": len(weight),
                "coupled_with": " ".join(plan.coupled_with(name)),
                "prunable": "no" if reason else "yes",
                "reason": reason,
            }
        )
    return lines


def _failing(model: nn.Module, plan: Plan, image_shape: Sequence[int]) -> dict[int, str]:
    """The groups whose removal gives another network than masking does, and why."""
    batch = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    network = _trial_network(model, batch)
    third = _random_third(plan)
    passed: list[int] = []
    failing: dict[int, str] = {}

    def problem(groups: list[int]) -> str | None:
        chosen = third & np.isin(plan.groups, groups)
        masked = removal.mask(network, plan, chosen)
        try:
            off = difference.largest(masked, removal.remove(network, plan, chosen), batch)
        except Exception as error:  # noqa: BLE001 - whatever a user's network may raise
            return errors.reason(error)
        if math.isinf(off):
            return "the outputs' shape changes"
        return None if off <= TOLERANCE else ""

    def try_out(groups: list[int]) -> None:
        # Always together with what has passed: two groups may pass alone and fail together.
        error = problem(passed + groups)
        if error is None:
            passed.extend(groups)
        elif len(groups) == 1:
            failing[groups[0]] = _explanation(plan.operations.get(groups[0], set()), error)
        else:
            try_out(groups[: len(groups) // 2])
            try_out(groups[len(groups) // 2 :])

    groups = np.unique(plan.groups[third]).tolist()
    if groups:
        try_out(groups)
    return failing


def _explanation(operations: set[str], error: str) -> str:
    """Why a group fails.

    operations: those that its channels pass through.
    error: of the small network; "" if it runs but computes something else.
    """
    because = f" ({error})" if error else ""
    passed = " ".join(operations)
    if "Permute" in passed or "Transpose" in passed:
        return f"its channels are rearranged on the way (a channel shuffle, heads){because}"
    if "Split" in passed or "Slice" in passed:
        return f"its channels are split at fixed places{because}"
    if error:
        return f"the network does not run without some of its channels{because}"
    return "channels of zeros do not stay zero on the way, or count in an operation across channels"


def _random_third(plan: Plan) -> np.ndarray:
    """A random third of each allowed group, at least a unit, emptying no layer: bool [units]."""
    share = ranking.ranks(np.random.default_rng(0).random(len(plan.groups)), plan.groups)
    units = np.fromiter(ranking.removable(plan, share), dtype=np.int64)
    removed = np.zeros(len(plan.groups), dtype=bool)
    first = ranking.positions(plan.groups[units]) == 0
    removed[units] = first | (share[units] < 1 / 3)
    return removed


@torch.no_grad()
def _randomize_(network: nn.Module) -> None:
    """Sets all parameters and statistics to random numbers of usual size, in place.

    New or trained weights can hide a difference: batch norms of ones and zeros, residual branches
    scaled by 1e-6, dead filters.
    """
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1:
            noise /= max(tensor[0].numel(), 1) ** 0.5
        elif name.endswith("running_var"):
            noise = 0.5 + noise.abs()
        elif name.endswith("weight"):
            noise = 1 + 0.3 * noise
        tensor.copy_(noise)


def _trial_network(model: nn.Module, batch: torch.Tensor) -> nn.Module:
    """A copy on the CPU with random weights, or with its own if random ones overflow."""
    problem = "its outputs are not finite"
    for randomize in (_randomize_, nn.Module.eval):
        network = copied(model).cpu().eval()
        randomize(network)
        try:
            # Not so where an output is infinite or undefined.
            if difference.largest(network, network, batch) == 0:
                return network
        except Exception as error:  # noqa: BLE001 - whatever a user's network may raise
            problem = errors.reason(error)
    raise UserError(f"structured pruning cannot try out the network on random images: {problem}")
