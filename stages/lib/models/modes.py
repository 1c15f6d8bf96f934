"""Training and evaluation mode, and what a network takes and gives in them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode. Afterwards each module is in its mode before: a network may
    keep some modules in evaluation mode while it trains.
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in before:
            module.training = training


def input_like(model: nn.Module) -> torch.Tensor:
    """A tensor of the type and on the device in which the network takes images: its first real
    parameter, or buffer.
    """
    tensors = (*model.parameters(), *model.buffers())
    real = (tensor for tensor in tensors if tensor.is_floating_point())
    return next(real, torch.empty(0))


def _asks_for_backward(output: torch.Tensor) -> bool:
    """Whether a part of the graph works with `backward` alone: a reentrant checkpoint."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        seen.add(node)
        waiting += [parent for parent, _ in node.next_functions]
    return False


def gradients(
    output: torch.Tensor, parameters: Sequence[nn.Parameter]
) -> Sequence[torch.Tensor | None]:
    """The gradients of a number, None where it does not depend on a parameter. The parameters' own
    `grad` stay as they are.
    """
    if not _asks_for_backward(output):
        return torch.autograd.grad(output, parameters, allow_unused=True)
    before = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        output.backward()
        return [parameter.grad for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
