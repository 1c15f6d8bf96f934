"""What pruning whole filters changed in a network, as plain data: enough to rebuild the small
network from a fresh dense one and the small one's tensors.

A layer's sizes stand in two places: in the shapes of its tensors, which the model's file has
anyway, and in whole numbers on the module (`out_channels`, `groups`, `normalized_shape`).
"""

from typing import Any

import torch
from torch import nn

Sizes = dict[str, dict[str, Any]]


def _is_size(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, tuple | list) and all(type(one) is int for one in value))


def sizes(model: nn.Module) -> Sizes:
    """The whole numbers, and lists of them, on each module, by module and attribute name."""
    return {
        name: {
            key: list(value) if isinstance(value, tuple | list) else value
            for key, value in vars(module).items()
            if not key.startswith("_") and _is_size(value)
        }
        for name, module in model.named_modules()
    }


def changes(dense: Sizes, small: Sizes) -> Sizes:
    """The sizes of `small` that differ from those of `dense`, a network of the same modules."""
    differing = {
        name: {key: value for key, value in found.items() if dense[name].get(key) != value}
        for name, found in small.items()
    }
    return {name: found for name, found in differing.items() if found}


def _resized(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    # Pruning only ever shrinks: anything else is not a pruned network of this architecture.
    if old.dim() != new.dim() or any(n > o for n, o in zip(new.shape, old.shape, strict=True)):
        raise ValueError("a tensor that is no smaller version of the dense network's")
    return torch.empty(new.shape, dtype=old.dtype, device=old.device)


def apply_(model: nn.Module, changed: Sizes, tensors: dict[str, torch.Tensor]) -> None:
    """Gives a fresh dense network the sizes of the small one that `tensors` belong to, in place;
    loading them is the caller's.

    Raises KeyError or ValueError where `changed` or `tensors` do not fit the network.
    """
    modules = dict(model.named_modules())
    known = sizes(model)
    for name, found in changed.items():
        for key, value in found.items():
            old = known[name][key]
            if not _is_size(value) or isinstance(value, list) != isinstance(old, list):
                raise ValueError(f"{name}.{key}: not a size")
            kind = type(getattr(modules[name], key))
            setattr(modules[name], key, kind(value))
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = modules[owner]
        for holder in (module._parameters, module._buffers):
            old = holder.get(leaf)
            if old is not None and old.shape != tensor.shape:
                new = _resized(old, tensor)
                holder[leaf] = nn.Parameter(new) if holder is module._parameters else new
