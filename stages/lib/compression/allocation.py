"""Allocates a budget of bytes to the layers: the sparsity and bit width of each.

Each choice for a layer costs bytes and distorts the network's output. The distortion within a
budget is least if all layers gain equally from one more byte (Shoham and Gersho, Efficient bit
allocation for an arbitrary set of quantizers, 1988): for a Lagrange multiplier λ, each layer takes
the choice with the least distortion + λ · bytes. A search finds the λ that meets the budget.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from stages.lib.compression.entropy_coding import ENTRY_BITS
from stages.lib.quantization import mse_scales
from stages.lib.quantization.linear import along

# Sparsities that a layer may be given.
SPARSITIES = (
    0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.875, 0.9, 0.92, 0.935, 0.95, 0.96, 0.97, 0.98, 0.99,
)  # fmt: skip


class Choice(NamedTuple):
    """One way to compress a layer.

    sparsity: share of its weights removed by magnitude.
    bits: of each code.
    size: bytes of its entropy-coded codes.
    distortion: the estimated squared change of the logits.
    """

    sparsity: float
    bits: int
    size: float
    distortion: float


def coded_bytes(codes: torch.Tensor) -> float:
    """About how many bytes a packed file needs for these codes: n · H, with H the Shannon entropy
    of their histogram, and one table entry for each code that occurs.
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
    """Every combination of sparsity and bits for one weight tensor, with its size and distortion.

    distortion: Σ sensitivity · (compressed weight − weight)², as in Optimal Brain Damage (LeCun,
    Denker and Solla, 1990), with `sensitivity.of_logits` for the second derivative.
    """
    options = []
    smallest_first = torch.argsort(weight.abs().flatten(), stable=True)
    for sparsity in sparsities:
        pruned = weight.flatten().clone()
        pruned[smallest_first[: round(sparsity * pruned.numel())]] = 0
        pruned = pruned.view_as(weight)
        for width in bits:
            scale = mse_scales.scales(pruned, width, granularity, mse_scales.COARSE_CLIPS)
            codes = mse_scales.codes(pruned, scale, width)
            change = codes * along(scale, weight) - weight
            distortion = float((sensitivity * change**2).sum())
            options.append(Choice(sparsity, width, coded_bytes(codes), distortion))
    return options


def _cheapest(layers: Mapping[str, Sequence[Choice]], multiplier: float) -> dict[str, Choice]:
    return {
        name: min(
            options, key=lambda option: (option.distortion + multiplier * option.size, option.size)
        )
        for name, options in layers.items()
    }


def size_of(plan: Mapping[str, Choice]) -> float:
    """The bytes of all layers together."""
    return sum(choice.size for choice in plan.values())


def _spend(
    plan: dict[str, Choice], layers: Mapping[str, Sequence[Choice]], budget: float
) -> dict[str, Choice]:
    """Spends what a plan leaves of the budget, greedily."""
    plan = dict(plan)
    while True:
        left = budget - size_of(plan)
        better = [
            ((now.distortion - option.distortion) / max(option.size - now.size, 1e-9), name, option)
            for name, now in plan.items()
            for option in layers[name]
            if option.distortion < now.distortion and option.size - now.size <= left
        ]
        if not better:
            return plan
        _, name, option = max(better, key=lambda step: step[0])
        plan[name] = option


def allocate(layers: Mapping[str, Sequence[Choice]], budget: float) -> dict[str, Choice]:
    """One choice per layer, at most `budget` bytes together, with little distortion: the plan with
    the least distortion + λ · bytes for some λ. If the smallest choices are too large, these.

    Such plans lie on the lower convex hull of sizes and distortions. What the plan leaves of the
    budget is then spent one choice at a time, where it reduces distortion most per byte.
    """
    low, high = -60.0, 60.0  # log2 λ
    plan = _cheapest(layers, 2.0**low)
    if size_of(plan) <= budget:
        return plan
    if size_of(_cheapest(layers, 2.0**high)) > budget:
        return {name: min(options, key=lambda one: one.size) for name, options in layers.items()}
    while high - low > 1e-6:
        middle = (low + high) / 2
        if size_of(_cheapest(layers, 2.0**middle)) <= budget:
            high = middle
        else:
            low = middle
    return _spend(_cheapest(layers, 2.0**high), layers, budget)
