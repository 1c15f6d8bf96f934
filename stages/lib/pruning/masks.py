"""Unstructured magnitude pruning: which single weights to keep.

A mask is bool, True where the weight stays. The criterion is the weight's absolute value (Han et
al., Learning both Weights and Connections, 2015); exactly round(sparsity · n) weights go, ties in
the order in which the weights are stored.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from stages.lib.models import prunable

Masks = dict[str, torch.Tensor]


def _check(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity {sparsity} is outside [0, 1)")


def _keep(magnitudes: torch.Tensor, sparsity: float) -> torch.Tensor:
    removed = torch.argsort(magnitudes, stable=True)[: round(sparsity * len(magnitudes))]
    keep = torch.ones(len(magnitudes), dtype=torch.bool, device=magnitudes.device)
    keep[removed] = False
    return keep


def layer_magnitude(weights: Mapping[str, torch.Tensor], layer: str, sparsity: float) -> Masks:
    """Prunes the weight called `layer` alone to `sparsity` (0 ≤ sparsity < 1)."""
    _check(sparsity)
    weight = weights[layer]
    return {layer: _keep(weight.abs().flatten(), sparsity).view_as(weight)}


def uniform_magnitude(weights: Mapping[str, torch.Tensor], sparsity: float) -> Masks:
    """Prunes every weight tensor to the same sparsity (0 ≤ sparsity < 1)."""
    return per_layer_magnitude(weights, dict.fromkeys(weights, sparsity))


def per_layer_magnitude(
    weights: Mapping[str, torch.Tensor], sparsities: Mapping[str, float]
) -> Masks:
    """Prunes each weight tensor to a sparsity of its own."""
    joined: Masks = {}
    for name, sparsity in sparsities.items():
        joined |= layer_magnitude(weights, name, sparsity)
    return joined


def global_magnitude(
    weights: Mapping[str, torch.Tensor],
    sparsity: float,
    within: Mapping[str, torch.Tensor] | None = None,
) -> Masks:
    """One threshold over all weights together, so that the whole reaches `sparsity` (0 ≤ sparsity <
    1).

    `within`: masks of an earlier step. What they removed goes first, so that masks only shrink.
    """
    _check(sparsity)
    magnitudes = []
    for name, weight in weights.items():
        magnitude = weight.abs()
        if within is not None:
            magnitude = magnitude.masked_fill(~within[name], -1)
        magnitudes.append(magnitude.flatten())
    keep = _keep(torch.cat(magnitudes), sparsity)
    parts = keep.split([weight.numel() for weight in weights.values()])
    return {
        name: part.view(weight.shape)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


def random_scores(
    weights: Mapping[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Uniform random numbers in place of magnitudes, for the control that every criterion must
    beat: given to `global_magnitude` or `uniform_magnitude`, the weights go by chance. One set of
    scores for all sparsities gives masks that only shrink.

    generator: a CPU stream.
    """
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in weights.items()
    }


def of_zeros(model: nn.Module) -> Masks:
    """The masks that a pruned network carries in its weights: False where a weight is zero."""
    return {name: weight != 0 for name, weight in prunable.weights(model).items()}


@torch.no_grad()
def apply_(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Sets the weights that the masks remove to zero, in place."""
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


def masked(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of the network with the masks applied."""
    pruned = copy.deepcopy(model)
    apply_(pruned, masks)
    return pruned
