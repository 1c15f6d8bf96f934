"""How a budget of bytes is shared among the layers: what sparsity and how many bits each one gets.

Each layer's choices cost bytes and distort the network's output. The least distortion within a
budget is where all layers gain equally from a further byte (Shoham and Gersho, Efficient bit
allocation for an arbitrary set of quantizers, 1988): for a Lagrange multiplier λ every layer takes
the choice with the least distortion + λ · bytes, and λ is searched for.
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
    distortion: an estimate of how far the logits move (their squared change).
    """

    sparsity: float
    bits: int
    size: float
    distortion: float


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
    """Bytes of all layers together."""
    return sum(choice.size for choice in plan.values())


def _spend(
    plan: dict[str, Choice], layers: Mapping[str, Sequence[Choice]], budget: float
) -> dict[str, Choice]:
    """The plan with what it leaves of the budget spent, greedily."""
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
    """One choice per layer, `budget` bytes together at most, with little distortion in all: the
    least of all plans at some λ. Where even the smallest choices are too large, these.

    That is on the lower convex hull of sizes and distortions; what a layer's step leaves unused is
    then spent one choice at a time, where it spares most distortion per byte.
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
