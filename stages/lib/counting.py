"""Parameters, nonzeros and multiply-adds of a network."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from stages.lib import masks

PRODUCTS = (functional.linear, functional.conv1d, functional.conv2d, functional.conv3d)


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


class _Uses(TorchFunctionMode):
    """Counts, while entered, how often each of these weights is multiplied with an input: by a
    layer, or by a network that uses the layer's weight without calling the layer.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.used = dict.fromkeys(names.values(), 0)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in PRODUCTS:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self.add(weight, result.numel() // weight.shape[0])
        return result

    def add(self, weight: torch.Tensor, count: int) -> None:
        if id(weight) in self.names:
            self.used[self.names[id(weight)]] += count

    def attention(self, module: nn.MultiheadAttention, _: object, output: tuple) -> None:
        """A hook: attention's products happen out of sight."""
        for weight in (*module.parameters(recurse=False), module.out_proj.weight):
            self.add(weight, output[0].numel() // output[0].shape[-1])


def positions(model: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """How often each prunable weight is used for one image: once per output position of its layer,
    whatever the groups (edges counted as if the padding were image); 0 where a forward pass never
    uses it. image_shape: (channels, height, width).
    """
    uses = _Uses({id(model.get_parameter(name)): name for name in masks.prunable(model)})
    hooks = [
        module.register_forward_hook(uses.attention)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    training = model.training
    first = next(model.parameters())
    image = torch.zeros(1, *image_shape, device=first.device, dtype=first.dtype)
    try:
        with torch.inference_mode(), uses:
            model.eval()(image)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return uses.used


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
