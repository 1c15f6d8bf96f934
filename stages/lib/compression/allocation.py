"""How a budget of bytes is shared among the layers: what sparsity and how many bits each one gets.

Each layer's choices cost bytes and damage the network's output. The least damage within a budget
is where all layers gain equally from a further byte (Shoham and Gersho, Efficient bit allocation
for an arbitrary set of quantizers, 1988): for a price per byte, every layer takes the choice with
the least damage + price · bytes, and the price is searched for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from stages.lib.compression.entropy_coding import ENTRY_BITS
from stages.lib.quantization import mse_scales

# Sparsities that a layer may be given.
SPARSITIES = (
    0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.875, 0.9, 0.92, 0.935, 0.95, 0.96, 0.97, 0.98, 0.99,
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One way to compress a layer. sparsity: share of its weights removed by magnitude; bits of
    each code; size: bytes of its entropy-coded codes; damage: an estimate of how far the logits
    move (their squared change).
    """

    sparsity: float
    bits: int
    size: float
    damage: float


def coded_bytes(codes: torch.Tensor) -> float:
    """About what a packed file takes for these codes: n · H with H the Shannon entropy in bits of
    their histogram, and an entry of its table for each code that occurs.
    """
    whole = codes.flatten().to(torch.int64)
    counts = (whole - whole.min()).bincount()
    counts = counts[counts > 0].double()
    shares = counts / counts.sum()
    return float((ENTRY_BITS * len(counts) - (counts * shares.log2()).sum()) / 8)


@torch.no_grad()
def choices(
    weight: torch.Tensor,
    sensitivity: torch.Tensor,
    sparsities: Sequence[float],
    bits: Sequence[int],
    granularity: str,
) -> list[Choice]:
    """Every combination of sparsity and bits for one weight tensor, measured on its values.

    damage: Σ sensitivity · (what becomes of the weight − the weight)², as in Optimal Brain Damage
    (LeCun, Denker and Solla, 1990), with `sensitivity.of_logits` for the second derivative.
    """
    found = []
    smallest_first = torch.argsort(weight.abs().flatten(), stable=True)
    for sparsity in sparsities:
        kept = weight.flatten().clone()
        kept[smallest_first[: round(sparsity * kept.numel())]] = 0
        kept = kept.view_as(weight)
        for width in bits:
            scale = mse_scales.scales(kept, width, granularity, mse_scales.COARSE)
            codes = mse_scales.codes(kept, scale, width)
            change = codes * mse_scales.along(scale, weight) - weight
            damage = float((sensitivity * change**2).sum())
            found.append(Choice(sparsity, width, coded_bytes(codes), damage))
    return found


def _cheapest(layers: Mapping[str, Sequence[Choice]], price: float) -> dict[str, Choice]:
    return {
        name: min(options, key=lambda one: (one.damage + price * one.size, one.size))
        for name, options in layers.items()
    }


def _size(plan: Mapping[str, Choice]) -> float:
    return sum(one.size for one in plan.values())


def _spend(
    plan: dict[str, Choice], layers: Mapping[str, Sequence[Choice]], budget: float
) -> dict[str, Choice]:
    """The plan with what it leaves of the budget spent, greedily."""
    plan = dict(plan)
    while True:
        left = budget - _size(plan)
        better = [
            ((plan[name].damage - one.damage) / max(one.size - plan[name].size, 1e-9), name, one)
            for name, options in layers.items()
            for one in options
            if one.damage < plan[name].damage and one.size - plan[name].size <= left
        ]
        if not better:
            return plan
        _, name, one = max(better, key=lambda found: found[0])
        plan[name] = one


def allocate(layers: Mapping[str, Sequence[Choice]], budget: float) -> dict[str, Choice]:
    """One choice per layer, `budget` bytes together at most, with little damage in all: the least
    of all plans at some price per byte. Where even the smallest choices are too large, these.

    On the lower convex hull of sizes and damages; what a layer's step leaves unused is then spent
    one choice at a time, where it spares most damage per byte.
    """
    smallest = {name: min(options, key=lambda one: one.size) for name, options in layers.items()}
    low, high = -60.0, 60.0  # log2 of the price
    plan = _cheapest(layers, 2.0**low)
    if _size(plan) <= budget:
        return plan
    if _size(_cheapest(layers, 2.0**high)) > budget:
        return smallest
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _size(_cheapest(layers, 2.0**middle)) <= budget:
            high = middle
        else:
            low = middle
    return _spend(_cheapest(layers, 2.0**high), layers, budget)
