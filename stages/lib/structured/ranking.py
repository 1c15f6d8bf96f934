"""Structured pruning: which filters a network can lose, and which of them to choose.

Filters are ranked by the L1 norm of their weights (Li et al., Pruning Filters for Efficient
ConvNets, 2017).
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import difference
from stages.lib.models import prunable
from stages.lib.structured import coupling, removal
from stages.lib.structured.coupling import Plan
from stages.lib.structured.removal import Filters

SCOPES = ("layer", "global")
# Of the trial, relative to the largest logit: rounding stays below, what is wrong far above.
TRIAL_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


def analyse(model: nn.Module, image_shape: Sequence[int]) -> Plan:
    """Finds what the network can lose: traces it, then tries it out.

    The trial removes a third of the filters of all coupled sets at once from a copy with random
    weights and compares it with the masked one; where they differ, or the small one fails, the
    sets to blame are found by halving and refused. The given network stays as it is, and its
    weights do not matter. image_shape: (channels, height, width).

    Raises UserError where the network cannot be traced, or nothing in it can be removed.
    """
    plan = coupling.couple(model, image_shape)
    plan = dataclasses.replace(plan, refusals=plan.refusals | _failing(model, plan, image_shape))
    if not plan.allowed.any():
        reasons = "; ".join(f"{name}: {reason}" for name, reason in plan.refused.items())
        raise UserError(f"no layer of the network can lose filters ({reasons or 'it has none'})")
    return plan


def _failing(model: nn.Module, plan: Plan, image_shape: Sequence[int]) -> dict[int, str]:
    """The coupled sets without whose filters the network is not what it is with zeros, and why."""
    network, batch, tolerance = _trial_network(model, image_shape)
    third = _trial_slots(plan)
    passed: list[int] = []
    failing: dict[int, str] = {}

    def problem(sets: list[int]) -> str | None:
        chosen = removal.of_slots(plan, third & np.isin(plan.sets, sets))
        with torch.no_grad():
            with_zeros = removal.mask(network, plan, chosen)(batch)
            try:
                without = removal.remove(network, plan, chosen)(batch)
            except Exception as error:  # noqa: BLE001 - whatever a user's network may raise
                return str(error).strip().partition("\n")[0][:100] or type(error).__name__
        if without.shape != with_zeros.shape:
            return f"the outputs' shape becomes {tuple(without.shape[1:])}"
        scale = with_zeros.abs().max().clamp_min(difference.SMALLEST)
        same = float((with_zeros - without).abs().max() / scale) <= tolerance
        return None if same else ""

    def try_out(sets: list[int]) -> None:
        # Always on top of what passed: two sets may each do no harm and fail together.
        said = problem(passed + sets)
        if said is None:
            passed.extend(sets)
        elif len(sets) == 1:
            failing[sets[0]] = _explanation(plan.passes.get(sets[0], frozenset()), said)
        else:
            try_out(sets[: len(sets) // 2])
            try_out(sets[len(sets) // 2 :])

    sets = np.unique(plan.sets[third]).tolist()
    if sets:
        try_out(sets)
    return failing


def _explanation(operations: frozenset[str], said: str) -> str:
    """In words: a set's channels pass these operations, and its small network said this, or
    nothing and computed something else.
    """
    because = f" ({said})" if said else ""
    passed = {name for name in ("View", "Reshape", "Permute", "Transpose") if any(
        name in operation for operation in operations)}  # fmt: skip
    if passed & {"Permute", "Transpose"}:
        return f"its channels are rearranged on the way (a channel shuffle, heads){because}"
    if any("Split" in operation or "Slice" in operation for operation in operations):
        return f"its channels are split at fixed places{because}"
    if said:
        return f"the network does not run without some of its channels{because}"
    return "channels of zeros do not stay zero on the way, or count in an operation across channels"


def _trial_slots(plan: Plan) -> np.ndarray:
    """bool [slots]: at random a third of each allowed set, at least one, and no layer emptied."""
    random = np.random.default_rng(0)
    share = np.ones(len(plan.sets))
    for one in np.unique(plan.sets[plan.allowed]):
        slots = random.permutation(np.flatnonzero(plan.sets == one))
        share[slots] = np.arange(len(slots)) / len(slots)
    gone = np.zeros(len(plan.sets), dtype=bool)
    for slot in _removable(plan, share):
        gone[slot] = share[slot] < 1 / 3
    return gone


@torch.no_grad()
def _stir_(network: nn.Module, generator: torch.Generator) -> None:
    """Sets all parameters and statistics to random numbers of their usual size, in place.

    Fresh or trained weights can hide a difference: batch norms of ones and zeros, residual
    branches scaled by 1e-6, dead filters.
    """
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if tensor.dim() > 1:
            noise /= max(tensor[0].numel(), 1) ** 0.5
        elif name.endswith("running_var"):
            noise = 0.5 + noise.abs()
        elif name.endswith("weight"):
            noise = 1 + 0.3 * noise
        tensor.copy_(noise)


@torch.no_grad()
def _trial_network(
    model: nn.Module, image_shape: Sequence[int]
) -> tuple[nn.Module, torch.Tensor, float]:
    """A copy on the CPU with random weights, a batch for it, and how far rounding may go: float64
    where the network can, its own weights where random ones overflow.
    """
    said = "its outputs are not finite"
    for dtype, tolerance in TRIAL_TOLERANCE.items():
        for stir in (True, False):
            generator = torch.Generator().manual_seed(0)
            network = copy.deepcopy(model).cpu().eval().to(dtype)
            if stir:
                _stir_(network, generator)
            batch = torch.randn(2, *image_shape, generator=generator, dtype=dtype)
            try:
                if network(batch).isfinite().all():
                    return network, batch, tolerance
            except Exception as error:  # noqa: BLE001 - whatever a user's network may raise
                said = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    raise UserError(f"structured pruning cannot try out the network on random images: {said}")


def _removable(plan: Plan, scores: np.ndarray) -> Iterator[int]:
    """The allowed slots, lowest score first (ties in the network's order), but for those that are
    the last of a side of some layer when their turn comes: these are passed over.
    """
    counts = [
        np.bincount(member.slots[member.slots >= 0], minlength=len(plan.sets))
        for member in plan.members
    ]
    left = np.array([len(member.slots) for member in plan.members])
    touched: list[list[tuple[int, int]]] = [[] for _ in plan.sets]
    for number, count in enumerate(counts):
        for slot in np.flatnonzero(count).tolist():
            touched[slot].append((number, int(count[slot])))
    allowed = plan.allowed
    for slot in np.argsort(scores, kind="stable").tolist():
        if not allowed[slot] or any(left[number] <= count for number, count in touched[slot]):
            continue
        for number, count in touched[slot]:
            left[number] -= count
        yield slot


def scores(model: nn.Module, plan: Plan, scope: str) -> np.ndarray:
    """How much each slot matters: float64 [slots], the lowest goes first.

    scope "global": the L1 norm of the slot's filters over their layer's mean, so that layers with
    larger kernels do not win by size alone (after Molchanov et al., 2017); the mean over the
    layers that the slot has filters in.
    scope "layer": the rank of that within the coupled set, 0…1, so that all sets lose the same
    share.
    """
    if scope not in SCOPES:
        raise ValueError(f"no scope is called {scope}")
    total, producers = np.zeros(len(plan.sets)), np.zeros(len(plan.sets))
    for name, slots in plan.filters.items():
        weight = model.get_submodule(name).weight.detach()
        norms = weight.abs().flatten(1).double().sum(1).cpu().numpy()
        used = np.unique(slots)
        summed = np.bincount(slots, norms, minlength=len(total))[used]
        total[used] += summed / max(summed.mean(), np.finfo(float).tiny)
        producers[used] += 1
    relative = total / np.maximum(producers, 1)
    if scope == "global":
        return relative
    ranked = np.empty_like(relative)
    for one in np.unique(plan.sets):
        members = np.flatnonzero(plan.sets == one)
        order = members[np.argsort(relative[members], kind="stable")]
        ranked[order] = (np.arange(len(order)) + 0.5) / len(order)
    return ranked


def _rank_within_set(sets: np.ndarray) -> np.ndarray:
    """How many earlier entries have the same set: [3, 5, 3, 3] → [0, 0, 1, 2]."""
    ranks = np.empty(len(sets), dtype=np.int64)
    for one in np.unique(sets):
        members = np.flatnonzero(sets == one)
        ranks[members] = np.arange(len(members))
    return ranks


def choose(model: nn.Module, plan: Plan, sparsity: float, scope: str, multiple: int = 1) -> Filters:
    """The lowest-scored filters whose removal leaves a share of prunable weights nearest to
    1 − sparsity (0 < sparsity < 1). The last filter of a layer stays.

    multiple: a layer that loses filters keeps a multiple of so many, as kernels compute channels
    in blocks.

    Raises UserError where that removes nothing at all, or where too much is refused to reach it.
    """
    weights = removal.Weights(model, plan)
    order = np.array(list(_removable(plan, scores(model, plan, scope))), dtype=np.int64)
    sets, sizes = plan.sets[order], np.bincount(plan.sets)
    rank = _rank_within_set(sets)
    dense = sum(weight.numel() for weight in prunable.weights(model).values())
    setting = f"sparsity {sparsity:g} with scope {scope}"
    if multiple > 1:
        setting += f" and widths that are multiples of {multiple}"

    def first(count: int) -> np.ndarray:
        left = sizes - np.bincount(sets[:count], minlength=len(sizes))
        going = np.maximum(sizes - -(-left // multiple) * multiple, 0)
        gone = np.zeros(len(plan.sets), dtype=bool)
        gone[order] = rank < going[sets]
        return gone

    def reached(count: int) -> float:
        return 1 - weights.left(first(count)) / dense

    if reached(len(order)) < sparsity:
        raise UserError(
            f"{setting} cannot be reached: {reached(len(order)):.4f} is the most, {_limits(plan)}"
        )
    # Removing one filter more never adds weights, so the count can be bisected: `low` stays below
    # the target, `high` reaches it.
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) < sparsity else (low, middle)
    nearest = min(low, high, key=lambda count: abs(reached(count) - sparsity))
    if reached(nearest) == 0:
        raise UserError(
            f"{setting} would remove nothing at all: the first step is {reached(high):.3g} of"
            " the weights;"
            " raise it, or widen the network"
        )
    return removal.of_slots(plan, first(nearest))


def _limits(plan: Plan) -> str:
    """What keeps a network from becoming smaller, in half a sentence."""
    refused = {name: reason for name, reason in plan.refused.items() if reason != coupling.CLASSES}
    stays = "as one filter stays in each layer"
    if not refused:
        return f"{stays}; lower it, or widen the network"
    name, reason = next(iter(refused.items()))
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return f"{stays} and layers are refused: {name} ({reason}){more}; lower it"
