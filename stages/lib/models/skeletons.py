"""The shapes and types of an architecture's network, found without allocating its tensors."""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from stages.lib.core import custom_model
from stages.lib.core.errors import UserError
from stages.lib.models import origins, registry, resizing

# The errors that torch may raise for a description that is unknown or cannot be built.
MISFITS = (
    AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
# Limits for a custom network that cannot be built without allocating its tensors.
LARGEST_CUSTOM = 2**16
# The functions that create parameters and buffers. Other tensors, whose values some networks read
# while they are built (stochastic depth rates, an index table), are created as usual.
MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


class _WithoutMemory(TorchFunctionMode):
    """While it is entered, parameters and buffers are created with shapes but without values."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        if function is torch.Tensor.normal_ and args[0].is_meta:
            return args[0]  # torch would import its compiler for it: two seconds
        return function(*args, **kwargs)


class Skeleton(NamedTuple):
    """An unpruned network: the shapes and types of its tensors in the order of its state dict, and
    the integer attributes of its modules.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    sizes: resizing.Sizes

    @property
    def elements(self) -> int:
        """The number of values in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def numbers(self, resized: resizing.Sizes, shapes: Iterable[Sequence[int]]) -> list[int]:
        """All integers of a network's modules and shapes, in order.

        resized: the sizes of its modules that differ from the unpruned network's.
        shapes: of all its tensors.
        """
        sizes = [
            size
            for module, own in self.sizes.items()
            for size in (own | resized.get(module, {})).values()
        ]
        return [number for size in (*sizes, *shapes) for number in _listed(size)]

    def smaller(self, taken: Iterable[int]) -> tuple[resizing.Sizes, list[tuple[int, ...]]]:
        """`resized` and `shapes` of the network whose numbers are smaller by `taken`."""
        left = iter(taken)
        resized: resizing.Sizes = {}
        for module, sizes in self.sizes.items():
            for key, old in sizes.items():
                new = [size - next(left) for size in _listed(old)]
                if new != _listed(old):
                    resized.setdefault(module, {})[key] = new if isinstance(old, list) else new[0]
        return resized, [tuple(size - next(left) for size in old) for old in self.shapes.values()]


def _listed(size: int | Sequence[int]) -> list[int]:
    return [size] if isinstance(size, int) else list(size)


def of(description: registry.Architecture) -> Skeleton:
    """The skeleton of the unpruned network of a description.

    No tensors are allocated, whatever sizes the description asks for. A custom network that needs
    the values of its tensors while it is built is really built, unless the description asks for
    more than 65,536 classes, channels or pixels a side.

    Raises ValueError if the description is not an architecture, UserError if the custom network's
    Python file is missing or has changed.
    """
    dense = registry.dense_architecture(description)
    name = dense.get("name")
    try:
        with torch.random.fork_rng(devices=[]), _WithoutMemory(), warnings.catch_warnings():
            # A network that brings its weights copies them to nowhere.
            warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")
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
        origins.find(model).sizes,
    )


def _is_modest(description: registry.Architecture) -> bool:
    values = [value for entry in description.values()
              for value in (entry if isinstance(entry, list) else [entry])]  # fmt: skip
    return all(value <= LARGEST_CUSTOM for value in values if isinstance(value, int | float))
