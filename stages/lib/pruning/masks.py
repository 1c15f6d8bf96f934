"""Unstructured pruning: masks that say which single weights stay.

A mask is a bool tensor, True where the weight stays. It is made from scores, one per weight, which
a module of `criteria` gives. The weights with the lowest scores are removed, exactly
round(sparsity · n) of them; ties are broken by the order of the weights.
"""

from collections.abc import Mapping

import torch
from torch import nn

from stages.lib.models import prunable
from stages.lib.models.origins import copied

Scores = Mapping[str, torch.Tensor]
Masks = dict[str, torch.Tensor]


def keep_largest(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """The mask of one tensor of scores, of the same shape. ValueError unless 0 ≤ sparsity < 1."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity {sparsity} is outside [0, 1)")
    removed = torch.argsort(scores.flatten(), stable=True)[: round(sparsity * scores.numel())]
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    keep[removed] = False
    return keep.view(scores.shape)


def per_layer(scores: Scores, sparsities: Mapping[str, float]) -> Masks:
    """Prunes each weight tensor in `sparsities` to its own sparsity."""
    return {name: keep_largest(scores[name], value) for name, value in sparsities.items()}


def uniform(scores: Scores, sparsity: float) -> Masks:
    """Prunes every weight tensor to the same sparsity."""
    return per_layer(scores, dict.fromkeys(scores, sparsity))


def global_(scores: Scores, sparsity: float, within: Masks | None = None) -> Masks:
    """Prunes by one threshold over all weights, so that the whole network reaches `sparsity`.

    within: masks of an earlier step. Weights that they removed stay removed.
    """
    if within is not None:
        scores = {
            name: score.masked_fill(~within[name], -torch.inf) for name, score in scores.items()
        }
    joined = keep_largest(torch.cat([score.flatten() for score in scores.values()]), sparsity)
    parts = joined.split([score.numel() for score in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


# The function for each `scope` of a method in the registry: each layer alike, or all together.
SCOPES = {"layer": uniform, "global": global_}


def of_zeros(model: nn.Module) -> Masks:
    """The masks of a pruned network, read from its weights: False where a weight is zero."""
    return {name: weight != 0 for name, weight in prunable.weights(model).items()}


@torch.no_grad()
def apply_(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Sets the weights that the masks remove to zero, in place."""
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


def masked(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of the network with the masks applied."""
    pruned = copied(model)
    apply_(pruned, masks)
    return pruned
