"""Parameters, nonzeros and MACs of a network."""

from collections.abc import Sequence
from inspect import signature

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from stages.lib.core.errors import UserError
from stages.lib.models import prunable
from stages.lib.models.modes import evaluating

CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)


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


class _Uses(TorchFunctionMode):
    """Counts, while it is entered, how often each weight is multiplied, even if the network uses it
    without calling its layer (as Swin's attention does).
    """

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names  # by the parameter's id
        self.positions = dict.fromkeys(names.values(), 0)

    def _add(self, weight: object, positions: int) -> None:
        if id(weight) in self.names:
            self.positions[self.names[id(weight)]] += positions

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        if function in (functional.linear, *CONVOLUTIONS):
            weight = arguments[1] if len(arguments) > 1 else keywords["weight"]
            channels = result.shape[-1 if function is functional.linear else 1]
            self._add(weight, result.numel() // channels)
        elif function is functional.multi_head_attention_forward:
            bound = signature(function).bind(*arguments, **keywords).arguments
            tokens = bound["query"].numel() // bound["query"].shape[-1]
            for name in ("out_proj_weight", *prunable.PROJECTIONS):
                self._add(bound.get(name), tokens)
        return result


def _black(model: nn.Module, image_shape: Sequence[int]) -> torch.Tensor:
    """One image in the network's dtype and on its device."""
    return next(model.parameters()).new_zeros(1, *image_shape)


def positions(model: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """How often one image uses each prunable weight: once per output position of its layer, for any
    number of groups. Padding counts as image. 0 if the forward pass does not use the weight in a
    convolution, a linear layer or attention's projections.

    image_shape: (channels, height, width).
    """
    uses = _Uses({id(model.get_parameter(name)): name for name in prunable.weights(model)})
    with torch.inference_mode(), evaluating(model), uses:
        model(_black(model, image_shape))
    return uses.positions


def unused(model: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """The prunable weights that no logit depends on. Pruning them would look as if it cost nothing.

    image_shape: (channels, height, width). Raises UserError if no gradient reaches any weight.
    """
    weights = {name: model.get_parameter(name) for name in prunable.weights(model)}
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        with evaluating(model):
            logits = model(_black(model, image_shape))
        gradients = torch.autograd.grad(logits.sum(), list(weights.values()), allow_unused=True)
    except RuntimeError:
        raise UserError(
            "model.name: the network's logits have no gradient, so it cannot be trained; take"
            " torch.no_grad, inference_mode and detach out of its forward"
        ) from None
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    return [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]


def macs(model: nn.Module, image_shape: Sequence[int]) -> int:
    """MACs with a nonzero weight for one image: nonzeros × positions of all convolutions, linear
    layers and attention's projections. Products without weights (of queries and keys, in norms) are
    not counted.

    With unstructured sparsity, this is what could be saved; a dense kernel does not save it
    (ShrinkBench's theoretical speedup; Blalock et al., 2020). image_shape: (channels, height,
    width).
    """
    used = positions(model, image_shape)
    weights = prunable.weights(model)
    return sum(int(torch.count_nonzero(weight)) * used[name] for name, weight in weights.items())


def inventory(model: nn.Module, image_shape: Sequence[int]) -> list[dict[str, object]]:
    """Every parameter of the network, in order, as lines of records.LAYER.

    image_shape: (channels, height, width).
    """
    used = positions(model, image_shape)
    return [
        {
            "parameter": name,
            "kind": type(model.get_submodule(name.rpartition(".")[0])).__name__,
            "shape": "×".join(map(str, parameter.shape)),
            "count": parameter.numel(),
            "macs": parameter.numel() * used.get(name, 0),
            "prunable": "yes" if name in used else "no",
        }
        for name, parameter in model.named_parameters()
    ]
