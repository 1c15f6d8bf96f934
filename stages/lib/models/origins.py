"""Where networks come from, and copies of networks that keep it.

A person's module gets no attribute that its own code could notice, so what is known of a network is
kept beside it.
"""

import copy
import weakref
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stages.lib.models.resizing import Sizes


class Origin(NamedTuple):
    """The unpruned network's architecture and layer sizes. Each network that `registry.build` made
    has one, also when it is copied or loses filters.
    """

    architecture: dict[str, Any]
    sizes: Sizes


_origins: dict[int, Origin] = {}


def keep(model: nn.Module, origin: Origin) -> None:
    """Keeps the origin of a network for as long as the network lives."""
    _origins[id(model)] = origin
    weakref.finalize(model, _origins.pop, id(model), None)


def find(model: nn.Module) -> Origin | None:
    """The origin of a network; None if `registry.build` did not make it."""
    return _origins.get(id(model))


class _Copying(TorchFunctionMode):
    """While it is entered, tensors that a network keeps from a forward pass are copied too, without
    their graph. torch refuses to copy them.
    """

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.Tensor.__deepcopy__ and not arguments[0].is_leaf:
            tensor, memo = arguments
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return function(*arguments, **(keywords or {}))


def copied(model: nn.Module) -> nn.Module:
    """A copy of the network, with its origin. The only way to copy a network here."""
    with _Copying():
        other = copy.deepcopy(model)
    origin = find(model)
    if origin is not None:
        keep(other, origin)
    return other
