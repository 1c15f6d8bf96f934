"""Parameters, nonzeros and MACs of a network."""

from collections.abc import Sequence

import torch
from torch import nn

from stages.lib.models import prunable
from stages.lib.models.modes import evaluating, input_like
from stages.lib.models.uses import Uses


def parameters(model: nn.Module) -> int:
    """The number of parameters, with biases and batch norm's."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzero_parameters(model: nn.Module) -> int:
    """The number of parameters that are not zero."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())


def prunable_weights(model: nn.Module) -> int:
    """The number of weights that may be pruned. Sparsity is a share of these."""
    return sum(weight.numel() for weight in prunable.weights(model).values())


def nonzero_weights(model: nn.Module) -> int:
    """The number of prunable weights that are not zero."""
    return sum(int(torch.count_nonzero(weight)) for weight in prunable.weights(model).values())


def _black(model: nn.Module, image_shape: Sequence[int]) -> torch.Tensor:
    """One image in the network's dtype and on its device."""
    return input_like(model).new_zeros(1, *image_shape)


def positions(model: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """How often one image uses each prunable weight: once per output position of its layer, for any
    number of groups. Padding counts as image. 0 if the forward pass does not use the weight in a
    convolution, a linear layer or attention's projections.

    image_shape: (channels, height, width).
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
    watched = Uses(weights)
    with torch.no_grad(), evaluating(model), watched:
        model(_black(model, image_shape))
    return {name: round(count) for name, count in watched.positions.items()}


def macs(model: nn.Module, image_shape: Sequence[int]) -> int:
    """MACs with a nonzero weight for one image: nonzeros × positions of all weights. Products
    without weights (of queries and keys, in norms) are not counted.

    With unstructured sparsity, this is what could be saved; a dense kernel does not save it
    (ShrinkBench's theoretical speedup; Blalock et al., 2020). image_shape: (channels, height,
    width).
    """
    used = positions(model, image_shape)
    return sum(
        int(torch.count_nonzero(model.get_parameter(name))) * count for name, count in used.items()
    )


def inventory(model: nn.Module, image_shape: Sequence[int]) -> list[dict[str, object]]:
    """Every parameter of the network, in order, as lines of records.LAYER.

    image_shape: (channels, height, width).
    """
    used, pruned = positions(model, image_shape), prunable.weights(model)
    return [
        {
            "parameter": name,
            "kind": type(model.get_submodule(name.rpartition(".")[0])).__name__,
            "shape": "×".join(map(str, parameter.shape)),
            "count": parameter.numel(),
            "macs": parameter.numel() * used.get(name, 0),
            "prunable": "yes" if name in pruned else "no",
        }
        for name, parameter in model.named_parameters()
    ]
