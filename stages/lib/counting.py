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


def multiply_adds(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiply-adds with a nonzero weight for one image, of all convolutions and linear layers.

    Each weight is used once per output position, whatever the groups, so a layer costs
    nonzeros × positions (edges counted as if the padding were image). For unstructured sparsity
    this is what could be saved, not what a dense kernel saves (ShrinkBench's theoretical speed-up;
    Blalock et al., 2020). image_shape: (channels, height, width).
    """
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        # [n, channels, …positions] for a convolution, [n, …positions, features] for a linear layer.
        channels = output.shape[-1] if isinstance(module, nn.Linear) else output.shape[1]
        positions = output.numel() // (output.shape[0] * channels)
        total += int(torch.count_nonzero(module.weight)) * positions

    hooks = [
        model.get_submodule(name.removesuffix(".weight")).register_forward_hook(count)
        for name in masks.prunable(model)
    ]
    training = model.training
    first = next(model.parameters())
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, *image_shape, device=first.device, dtype=first.dtype))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return total
