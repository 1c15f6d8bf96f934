"""What the networks of an architecture look like, found without the memory that they would take."""

import math
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from stages.lib.core import custom_model
from stages.lib.core.errors import UserError
from stages.lib.models import registry, resizing

# What a foreign description, or one that cannot be built, may raise on its way through torch.
MISFITS = (
    AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
# For a network of the user's own that cannot be built without memory.
LARGEST_OWN = 2**16


# What parameters and buffers are made of. Other tensors, of which some networks read the values
# while they are built (a row of stochastic depths, an index table), are made as ever.
MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


class _WithoutMemory(TorchFunctionMode):
    """Parameters and buffers have shapes and no values."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        if function is torch.Tensor.normal_ and args[0].is_meta:
            return args[0]  # torch would import its compiler for it: two seconds
        return function(*args, **kwargs)


class Skeleton(NamedTuple):
    """An unpruned network: the shapes and types of its tensors, in the order of its state dict, and
    the whole numbers on its modules.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    sizes: resizing.Sizes

    @property
    def elements(self) -> int:
        """How many numbers all tensors hold."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def of(description: registry.Architecture) -> Skeleton:
    """The skeleton of the unpruned network behind a description.

    Nothing is allocated, whatever sizes the description names. A network of the user's own that
    needs its tensors' values to be built is built for real, unless it is asked for more than 65,536
    classes, channels or pixels a side. Raises ValueError where the description is none of ours,
    UserError where the user's file is missing or has changed.
    """
    dense = registry.dense_architecture(description)
    name = dense.get("name")
    try:
        with torch.random.fork_rng(devices=[]), _WithoutMemory():
            model = registry.build(dense)
    except MISFITS as error:
        raise ValueError(f"not a network that can be built ({type(error).__name__})") from None
    except UserError:
        if not (isinstance(name, str) and custom_model.is_own(name) and _is_modest(dense)):
            raise
        with torch.random.fork_rng(devices=[]):
            model = registry.build(dense)
    state = model.state_dict()
    return Skeleton(
        {key: tuple(tensor.shape) for key, tensor in state.items()},
        {key: tensor.dtype for key, tensor in state.items()},
        model._unpruned.sizes,
    )


def _is_modest(description: registry.Architecture) -> bool:
    found = [
        one
        for value in description.values()
        for one in (value if isinstance(value, list) else [value])
    ]
    return all(one <= LARGEST_OWN for one in found if isinstance(one, int | float))


def differences(dense: resizing.Sizes, small: resizing.Sizes) -> list[int]:
    """What pruned filters took off each whole number of the dense network's sizes, in order: 0
    where nothing. `small`: the changed sizes alone, as an architecture has them.
    """
    taken = []
    for module, found in dense.items():
        for key, old in found.items():
            new = small.get(module, {}).get(key, old)
            pairs = zip(old, new, strict=True) if isinstance(old, list) else [(old, new)]
            taken += [before - after for before, after in pairs]
    return taken


def resized(dense: resizing.Sizes, taken: list[int]) -> resizing.Sizes:
    """The changed sizes that `differences` came from; `taken` is one for each whole number."""
    left = iter(taken)
    small: resizing.Sizes = {}
    for module, found in dense.items():
        for key, old in found.items():
            before = old if isinstance(old, list) else [old]
            after = [size - next(left) for size in before]
            if after != before:
                small.setdefault(module, {})[key] = after if isinstance(old, list) else after[0]
    return small
