"""How a network uses its weights: how often, and whether as they are."""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
PRODUCTS = frozenset({
    torch.matmul, torch.mm, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__, torch.Tensor.mm, torch.Tensor.bmm,
})  # fmt: skip
SUMS_AND_PRODUCTS = frozenset({torch.addmm, torch.baddbmm, torch.Tensor.addmm})
MULTIPLYING = frozenset(
    {functional.linear, torch.einsum, *CONVOLUTIONS, *PRODUCTS, *SUMS_AND_PRODUCTS}
)

# What a network reads off its own parameters, without computing with them.
FLAGS = frozenset(
    getattr(torch.Tensor, name).__get__ for name in ("requires_grad", "is_leaf", "grad", "grad_fn")
)


def _per_weight(function, arguments: tuple, weight: torch.Tensor, result: torch.Tensor) -> float:
    """How often a multiplying function uses each element of `weight`."""
    if function is functional.linear:
        return result.numel() / result.shape[-1]
    if function in CONVOLUTIONS:
        return result.numel() / result.shape[1]
    if function is torch.einsum:
        equation, *operands = arguments
        if not isinstance(equation, str) or "..." in equation:
            return 0
        names = equation.replace(" ", "").partition("->")[0].split(",")
        operands = operands[0] if isinstance(operands[0], list | tuple) else operands
        sizes = {
            letter: size
            for name, operand in zip(names, operands, strict=True)
            for letter, size in zip(name, operand.shape, strict=True)
        }
        return math.prod(sizes.values()) / weight.numel()
    # A product of matrices: each weight on the left meets each column, on the right each row.
    left = arguments[0 if function in PRODUCTS else 1]
    return result.numel() / (weight.shape[-2 if left is weight else -1])


class Uses(TorchFunctionMode):
    """Watches, while it is entered, which weights the network multiplies with, even if it does so
    without calling their layers (as Swin's attention does), or with values that it computes from
    them (weight standardization).

    weights: by name.
    positions: how often each is used, by name.
    computed: the tensors that the network computed from a weight and multiplied with, by name.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.weights = weights
        self.positions: dict[str, float] = dict.fromkeys(weights, 0)
        self.computed: dict[str, list[torch.Tensor]] = {}
        # Views have the storage of their weight. What is computed is known by its identity, and is
        # kept, so that no other tensor gets the same.
        self.storages = {
            weight.untyped_storage().data_ptr(): name for name, weight in weights.items()
        }
        self.made: dict[int, tuple[str, torch.Tensor]] = {}

    def _name(self, value: object) -> str | None:
        """The weight that a value is, shows a part of, or is computed from."""
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            return None
        name = self.storages.get(value.untyped_storage().data_ptr()) if value.numel() else None
        return name or self.made.get(id(value), (None, None))[0]

    def _use(self, name: str, value: torch.Tensor, times: float) -> None:
        self.positions[name] += times * value.numel() / self.weights[name].numel()
        if id(value) in self.made:
            self.computed.setdefault(name, []).append(value)

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        values = [*arguments, *keywords.values()]
        if function is torch.einsum and isinstance(arguments[-1], list | tuple):
            values += arguments[-1]
        named = [(name, value) for value in values if (name := self._name(value))]
        if function is functional.multi_head_attention_forward:
            bound = signature(function).bind(*arguments, **keywords).arguments
            tokens = bound["query"].numel() // bound["query"].shape[-1]
            for name, value in named:
                if value.dim() == 2:  # not the biases of keys and values
                    self._use(name, value, tokens)
        elif function in MULTIPLYING:
            for name, value in named:
                self._use(name, value, _per_weight(function, arguments, value, result))
        elif isinstance(result, torch.Tensor):
            for name, value in named:
                same_size = result.numel() == value.numel()
                if same_size and self.storages.get(result.untyped_storage().data_ptr()) != name:
                    self.made[id(result)] = name, result
        return result


class StandIns(TorchFunctionMode):
    """Computes, while it is entered, with other tensors in place of the network's parameters. The
    network itself is not changed, and a parameter may belong to several layers.

    tensors: by parameter.
    """

    def __init__(self, tensors: Mapping[nn.Parameter, torch.Tensor]) -> None:
        super().__init__()
        self.tensors = {id(parameter): tensor for parameter, tensor in tensors.items()}

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return (
                type(value)(map(self._replaced, value)) if type(value) in (list, tuple) else value
            )
        return self.tensors.get(id(value), value)

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function in FLAGS:
            return function(*arguments, **(keywords or {}))
        keywords = {name: self._replaced(value) for name, value in (keywords or {}).items()}
        return function(*map(self._replaced, arguments), **keywords)


@torch.no_grad()
def changing(
    model: nn.Module, weights: Mapping[str, torch.Tensor], images: torch.Tensor
) -> list[str]:
    """The weights from which the forward pass computes others that are not zero where the weight is
    zero (weight standardization), so that pruning would remove nothing.

    model: in evaluation mode; its weights are overwritten.
    weights: its parameters, by name.
    """
    stream = torch.Generator().manual_seed(0)
    for weight in weights.values():
        noise = torch.randn(weight.shape, generator=stream)
        noise[torch.rand(weight.shape, generator=stream) < 0.5] = 0
        weight.copy_(noise / max(1, weight[0].numel()) ** 0.5)
    uses = Uses(weights)
    with uses:
        model(images)

    def zeros(tensor: torch.Tensor) -> int:
        return tensor.numel() - int(torch.count_nonzero(tensor))

    return [
        name
        for name, tensors in uses.computed.items()
        if any(zeros(tensor) < zeros(weights[name]) for tensor in tensors)
    ]
