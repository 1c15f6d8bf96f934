"""Parameters, nonzeros and multiply-adds of a network."""

from collections.abc import Sequence

import torch
from torch import nn

from stages.lib import masks


def parameters(model: nn.Module) -> int:
    """Number of parameters, batch norm's and biases too."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzero_parameters(model: nn.Module) -> int:
    """Number of parameters that are not zero."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())


def prunable_weights(model: nn.Module) -> int:
    """Number of weights that pruning may touch: what sparsity is a share of."""
    return sum(weight.numel() for weight in masks.prunable(model).values())


def nonzero_weights(model: nn.Module) -> int:
    """Number of prunable weights that are not zero."""
    return sum(int(torch.count_nonzero(weight)) for weight in masks.prunable(model).values())


def positions(model: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """How often each prunable weight is used for one image: once per output position of its layer,
    whatever the groups (edges counted as if the padding were image); 0 where a forward pass never
    calls the layer. image_shape: (channels, height, width).
    """
    names = {id(model.get_parameter(name)): name for name in masks.prunable(model)}
    used = dict.fromkeys(names.values(), 0)

    def count(module: nn.Module, _: object, output: torch.Tensor | tuple) -> None:
        # Attention returns its output first; it calls no layer for its projection out.
        attention = isinstance(module, nn.MultiheadAttention)
        result = output[0] if attention else output
        own = [*module.parameters(recurse=False), *([module.out_proj.weight] if attention else [])]
        # [n, …positions, features] for linear layers and attention, else [n, channels, …positions].
        last = attention or isinstance(module, nn.Linear)
        channels = result.shape[-1 if last else 1]
        for parameter in own:
            if id(parameter) in names:
                used[names[id(parameter)]] += result.numel() // channels

    # Layers that share a weight each use it, so all modules are asked.
    hooks = [module.register_forward_hook(count) for module in model.modules() if _counts(module)]
    training = model.training
    first = next(model.parameters())
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, *image_shape, device=first.device, dtype=first.dtype))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return used


def _counts(module: nn.Module) -> bool:
    return isinstance(module, (*masks.WEIGHTED, nn.MultiheadAttention))


def multiply_adds(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiply-adds with a nonzero weight for one image, of all convolutions, linear layers and
    attention's projections: nonzeros × positions.

    For unstructured sparsity this is what could be saved, not what a dense kernel saves
    (ShrinkBench's theoretical speed-up; Blalock et al., 2020). image_shape: (channels, height,
    width).
    """
    used = positions(model, image_shape)
    return sum(
        int(torch.count_nonzero(weight)) * used[name]
        for name, weight in masks.prunable(model).items()
    )
