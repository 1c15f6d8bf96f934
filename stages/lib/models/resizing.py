"""The sizes that removing filters changed in a network, as plain data. With them, the small network
is rebuilt from a new unpruned one and the small one's tensors.

A layer has its sizes in two places: in the shapes of its tensors, which are in the model's file,
and in integer attributes of the module (`out_channels`, `groups`, `normalized_shape`).
"""

from typing import Any

import torch
from torch import nn

Sizes = dict[str, dict[str, Any]]


def _is_size(value: Any) -> bool:
    values = value if isinstance(value, tuple | list) else (value,)
    return all(isinstance(part, int) and not isinstance(part, bool) for part in values)


def sizes(model: nn.Module) -> Sizes:
    """The integer attributes of each module, and lists of integers, by module and attribute
    name.
    """
    return {
        name: {
            key: list(value) if isinstance(value, tuple | list) else value
            for key, value in vars(module).items()
            if not key.startswith("_") and _is_size(value)
        }
        for name, module in model.named_modules()
    }


def _shrank(old: Any, new: Any) -> bool:
    """Whether a size, or at least one in a list, became smaller and none became larger."""
    if isinstance(old, list) and isinstance(new, list):
        pairs = list(zip(old, new, strict=False))
        return len(old) == len(new) and old != new and all(0 < n <= o or n == o for o, n in pairs)
    return type(old) is not list and type(new) is not list and 0 < new < old


def changes(dense: Sizes, small: Sizes) -> Sizes:
    """The sizes of `small` that are smaller than those of `dense`, a network of the same modules.

    Pruning never makes a size larger: a number that grew is something else, such as a counter.
    """
    smaller = {
        name: {
            key: value
            for key, value in values.items()
            if key in dense[name] and _shrank(dense[name][key], value)
        }
        for name, values in small.items()
    }
    return {name: values for name, values in smaller.items() if values}


def _resized(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    # Pruning never makes a size larger: this is not a pruned network of this architecture.
    if old.dim() != new.dim() or any(n > o for n, o in zip(new.shape, old.shape, strict=True)):
        raise ValueError("a tensor that is no smaller version of the dense network's")
    return torch.empty(new.shape, dtype=old.dtype, device=old.device)


def apply_(model: nn.Module, changed: Sizes, tensors: dict[str, torch.Tensor]) -> None:
    """Changes a new unpruned network, in place, to the sizes of the small network that `tensors`
    belong to. The caller loads the tensors.

    Raises AttributeError, KeyError or ValueError if `changed` or `tensors` do not fit the network.
    """
    modules = dict(model.named_modules())
    known = sizes(model)
    for name, values in changed.items():
        for key, value in values.items():
            if not _is_size(value) or not _shrank(known[name][key], value):
                raise ValueError(f"{name}.{key}: not a size that pruning leaves")
            kind = type(getattr(modules[name], key))
            setattr(modules[name], key, kind(value))
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        for holder in (modules[owner]._parameters, modules[owner]._buffers):
            old = holder.get(leaf)
            if old is not None and old.shape != tensor.shape:
                new = _resized(old, tensor)
                parameter = isinstance(old, nn.Parameter)
                holder[leaf] = nn.Parameter(new, old.requires_grad) if parameter else new
