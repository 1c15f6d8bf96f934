"""Which channels of a network fall together: what a filter takes with it when it goes.

Torch-Pruning (Fang et al., DepGraph: Towards Any Structural Pruning, 2023) traces the network and
knows, operation by operation, how the channels of one layer depend on those of the next. Here its
graph is walked once; what is found is a `Plan`, plain arrays that hold for every copy of the
network.
"""

import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch_pruning.dependency import index_mapping, shape_infer
from torch_pruning.ops import OPTYPE

from stages.lib.core.errors import UserError
from stages.lib.models import prunable

OUT, IN = "out", "in"
# The slot of a channel that nothing can remove (the image's): the last place of an array of slots.
FIXED = -1

# More root channels for one channel than any gate couples: the graph has gone astray.
MOST_ROOTS = 16

CLASSES = "its outputs are the classes"
HEADS = "its channels are split into attention heads"
# Mean and variance over channels change with their number, so that zeros are not the same as none.
ACROSS = {
    OPTYPE.LN: "a layer norm runs over its channels",
    OPTYPE.GN: "a group norm runs over its channels",
    OPTYPE.MHA: HEADS,
    OPTYPE.LSTM: "a recurrent layer reads its channels",
    OPTYPE.EMBED: "an embedding is added to its channels",
}
LOST = "its channels are rearranged in a way that Torch-Pruning cannot follow"
FUNCTIONS = {"NativeLayerNorm": ACROSS[OPTYPE.LN], "NativeGroupNorm": ACROSS[OPTYPE.GN]}


@dataclass(frozen=True)
class Member:
    """One side of a layer that loses channels.

    slots: int64 [channels of that side], the slot each channel falls with, or FIXED.
    prune: Torch-Pruning's function that removes channels from this side, of (layer, indices).
    """

    layer: str
    side: str
    slots: np.ndarray
    prune: Callable[[nn.Module, list[int]], object]


@dataclass(frozen=True)
class Plan:
    """What can be removed from a network, and what goes with it.

    A slot is the unit of removal: all channels, of all layers, that fall together. Of a grouped
    convolution these are the same place in each of its groups, so that groups stay equal. Slots of
    layers that share any slot form a coupled set.

    filters: the slots of each layer's filters (or units), by name: all prunable layers that were
    traced, in the network's order. sets: int64 [slots], the coupled set of each slot.
    refusals: why the slots of a set stay. untraced: why a prunable layer has no slots.
    passes: the operations between layers that a set's channels go through.
    """

    members: tuple[Member, ...]
    filters: dict[str, np.ndarray]
    sets: np.ndarray
    refusals: dict[int, str]
    untraced: dict[str, str]
    passes: dict[int, frozenset[str]]

    @property
    def allowed(self) -> np.ndarray:
        """bool [slots]: which may be removed."""
        return ~np.isin(self.sets, list(self.refusals))

    @property
    def refused(self) -> dict[str, str]:
        """Why, for each layer that keeps all its filters."""
        reasons = {
            name: self.refusals[set_]
            for name, slots in self.filters.items()
            if (set_ := int(self.sets[slots[0]])) in self.refusals
        }
        return reasons | self.untraced

    def coupled_with(self, layer: str) -> list[str]:
        """The other layers whose filters fall with some of this one's."""
        if layer not in self.filters:
            return []
        own = self.sets[self.filters[layer][0]]
        return [
            name
            for name, slots in self.filters.items()
            if name != layer and self.sets[slots[0]] == own
        ]


class _Index(NamedTuple):
    """A channel, and the root's channel that leads to it, by the names Torch-Pruning reads."""

    idx: int
    root_idx: int


class _Union:
    """Disjoint sets of numbered things; the lowest number stands for its set."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def add(self, count: int) -> int:
        """Adds `count` sets of one; returns the number of the first."""
        start = len(self.parent)
        self.parent += range(start, start + count)
        return start

    def find(self, one: int) -> int:
        while self.parent[one] != one:
            self.parent[one] = self.parent[self.parent[one]]
            one = self.parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        one, other = sorted((self.find(one), self.find(other)))
        self.parent[other] = one

    def labels(self) -> np.ndarray:
        """int64 [things]: 0, 1, 2, … by set, in the order of their lowest number."""
        roots = np.array([self.find(one) for one in range(len(self.parent))], dtype=np.int64)
        return np.unique(roots, return_inverse=True)[1]


class _Trace(NamedTuple):
    """outputs: autograd's nodes of what the network returns; widest: most channels of a layer."""

    graph: torch_pruning.DependencyGraph
    names: dict[nn.Module, str]
    outputs: set
    widest: int


def _flattens(graph: torch_pruning.DependencyGraph, node) -> bool:
    """Whether a reshape joins all of [channels, height, width] into features, or is 2-D (in which
    case Torch-Pruning looks at what follows). Where autograd does not know the size: True.
    """
    size = getattr(node.grad_fn, "_saved_self_sym_sizes", None)
    if size is None or len(size) == 2:
        return True
    counts = (
        shape_infer.infer_in_channels_recursively(graph, output, [0]) for output in node.outputs
    )
    features = next((count for count in counts if count is not None), None)
    return len(size) == 4 and features == size[1] * size[2] * size[3]


@contextmanager
def _only_flattening() -> Iterator[None]:
    """Torch-Pruning 1.6.1 takes every reshape for a flattening (with a torch that saves sizes under
    their new name): a channel shuffle then divides by zero, windows of attention multiply channels.
    """
    update = index_mapping.update_reshape_index_mapping

    def guarded(graph: torch_pruning.DependencyGraph, node) -> None:
        if _flattens(graph, node):
            update(graph, node)

    index_mapping.update_reshape_index_mapping = guarded
    try:
        yield
    finally:
        index_mapping.update_reshape_index_mapping = update


def _trace(model: nn.Module, image_shape: Sequence[int]) -> _Trace:
    """Torch-Pruning's graph of a copy, so that the given network's mode and gradients stay."""
    outputs = []

    def keep(output: object) -> object:
        outputs.extend(torch_pruning.utils.flatten_as_list(output))
        return output

    # Tracing follows autograd's graph, and has opinions on what it sees that users cannot act on.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        warnings.catch_warnings(action="ignore"),
        _only_flattening(),
    ):
        model = copy.deepcopy(model).eval().requires_grad_()
        model = model.to(memory_format=torch.contiguous_format)
        first = next(model.parameters())
        example = torch.zeros(1, *image_shape, device=first.device, dtype=first.dtype)
        try:
            # Once on its own: Torch-Pruning answers an error of the network with another one.
            logits = model(example)
            if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
                raise TypeError("it does not return one tensor of logits [n, classes]")
            graph = torch_pruning.DependencyGraph().build_dependency(
                model, (example,), output_transform=keep, verbose=False
            )
        except Exception as error:  # noqa: BLE001 - whatever a user's network may raise
            said = str(error).strip().partition("\n")[0][:200]
            raise UserError(
                "structured pruning cannot trace the network on one image of shape"
                f" {tuple(image_shape)}: {type(error).__name__}: {said}"
            ) from None
    names = {module: name for name, module in model.named_modules()}
    sizes = (
        max(parameter.shape, default=1) * getattr(module, "groups", 1)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    return _Trace(graph, names, {output.grad_fn for output in outputs}, max(sizes))


def _side(function: Callable) -> str:
    """Layers that hand channels on (norms, depthwise) have one function for both sides: OUT."""
    return IN if function.__name__ == "prune_in_channels" else OUT


def _mapped(dependency, indices: list[_Index]) -> list[_Index]:
    """The channels at the other end of a dependency; −1 where Torch-Pruning has no answer."""
    try:
        for mapping in dependency.index_mapping:
            indices = mapping(indices) if mapping is not None else indices
    except IndexError:  # a split into parts of unknown size
        return [_Index(-1, index.root_idx) for index in indices]
    return indices


def _walk(
    trace: _Trace, layer: nn.Module, channels: Iterable[int], shared: set[nn.Module]
) -> Iterator[tuple]:
    """Follows output channels of a layer to all that falls with them: yields (node, function,
    [(channel there, root channel), …], obstacle or None), a node again where more reaches it.

    Unlike in Torch-Pruning's own groups, a channel reached from two root channels is told twice:
    these two fall together (the halves of a gated unit). From an obstacle on, none can go, so
    they are no longer told apart: all count as the first one's.
    """
    graph = trace.graph
    function = graph.get_pruner_of_module(layer).prune_out_channels
    waiting = [
        (
            graph.module2node[layer],
            function,
            [_Index(channel, channel) for channel in channels],
        )
    ]
    seen: dict[tuple, set] = {}
    merged = None
    while waiting:
        node, function, indices = waiting.pop()
        side = _side(function)
        known = seen.setdefault((node, side), set())
        count = _channels(trace, node.module, side)
        limit = trace.widest if count is None else count
        if not indices:
            continue
        inside = [index for index in indices if 0 <= index.idx < limit]
        obstacle = LOST if len(inside) < len(indices) else _obstacle(trace, node, side, shared)
        if merged is None and (obstacle or len(known) > MOST_ROOTS * limit):
            obstacle = obstacle or LOST
            merged = indices[0].root_idx
        if merged is not None:
            inside = [_Index(index.idx, merged) for index in inside]
        new = [index for index in dict.fromkeys(inside) if index not in known]
        if not new and not obstacle:
            continue
        known.update(new)
        yield node, function, new, obstacle
        for dependency in node.dependencies if new else ():
            if dependency.is_triggered_by(function):
                waiting.append((dependency.target, dependency.handler, _mapped(dependency, new)))


def _shared(model: nn.Module) -> set[nn.Module]:
    """Modules one of whose parameters is another module's too."""
    owners: dict[nn.Parameter, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, []).append(module)
    return {module for found in owners.values() if len(found) > 1 for module in found}


def _obstacle(trace: _Trace, node, side: str, shared: set[nn.Module]) -> str | None:
    """Why channels that reach this side of a node cannot be removed; None where they can."""
    module = node.module
    if side == OUT and node.grad_fn in trace.outputs:
        return CLASSES
    if node.type in ACROSS:
        return ACROSS[node.type]
    if node.type == OPTYPE.PARAMETER:
        name = trace.graph._param_to_name[module]
        return f"the network's own parameter {name} acts on its channels"
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
        if module.transposed:
            return "a grouped transposed convolution reads or writes its channels"
        if module.groups == module.out_channels != module.in_channels:
            return "a convolution with one filter per group of channels reads or writes them"
    if module in shared:
        return "its weights, or a coupled layer's, are shared with another layer"
    return next((why for name, why in FUNCTIONS.items() if name in _operation(node)), None)


def _operation(node) -> str:
    """Autograd's name of what a node between layers does; "" for a layer."""
    plain = node.type in (OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.SPLIT, OPTYPE.SLICE)
    return node.grad_fn.name() if plain and hasattr(node.grad_fn, "name") else ""


def _channels(trace: _Trace, module: nn.Module, side: str) -> int | None:
    """How many a side has; None for what has none of its own (an addition)."""
    pruner = trace.graph.get_pruner_of_module(module)
    if module not in trace.names:
        return None
    return (pruner.get_in_channels if side == IN else pruner.get_out_channels)(module)


def _conv_groups(module: nn.Module, side: str, count: int) -> int:
    """Groups that must stay equal on this side: those of a grouped, not depthwise, convolution."""
    if not isinstance(module, nn.modules.conv._ConvNd):
        return 1
    depthwise = module.groups == module.in_channels == module.out_channels
    return 1 if depthwise else module.groups


def couple(model: nn.Module, image_shape: Sequence[int]) -> Plan:
    """Traces the network and finds its slots and coupled sets; sets that are known not to be
    removable are refused already.

    image_shape: (channels, height, width). Raises UserError where the network cannot be traced.
    """
    trace = _trace(model, image_shape)
    graph, names = trace.graph, trace.names
    traced = trace.graph.model
    layers = list(prunable.layers(traced).items())
    shared = _shared(traced)

    atoms = _Union()  # the channels of all sides; joined where they fall together
    sides: dict[tuple[nn.Module, str], tuple[int, int]] = {}  # first atom and number of channels
    functions: dict[tuple[nn.Module, str], Callable] = {}
    reached: set[int] = set()
    found: list[tuple[int, str]] = []  # atom, obstacle
    operations: list[tuple[int, str]] = []

    def start(module: nn.Module, side: str) -> tuple[int, int] | None:
        if (module, side) not in sides:
            count = _channels(trace, module, side)
            if count is None:
                return None
            sides[module, side] = atoms.add(count), count
        return sides[module, side]

    for _, layer in layers:
        if layer not in graph.module2node:
            continue
        root, count = start(layer, OUT)
        # What an earlier layer reached is done: only the rest starts a walk of its own.
        rest = [channel for channel in range(count) if root + channel not in reached]
        if not rest:
            continue
        for node, function, indices, obstacle in _walk(trace, layer, rest, shared):
            if obstacle is not None:
                found.append((root + rest[0], obstacle))
            if _operation(node):
                operations.append((root + rest[0], _operation(node)))
            place = start(node.module, _side(function))
            if place is None or not indices:
                continue
            functions[node.module, _side(function)] = function
            for index in indices:
                atoms.join(place[0] + index.idx, root + index.root_idx)
                reached.add(place[0] + index.idx)

    # Groups of a convolution stay equal where the same place goes in each of them.
    for (module, side), (first, count) in sides.items():
        size = count // _conv_groups(module, side, count)
        for channel in range(size, count):
            atoms.join(first + channel, first + channel % size)

    slots_of = atoms.labels()
    linked = _Union()
    linked.add(int(slots_of.max(initial=-1)) + 1)
    filters = {}
    for name, layer in layers:
        if (layer, OUT) in sides:
            first, count = sides[layer, OUT]
            filters[name] = slots_of[first : first + count]
            for slot in filters[name][1:]:
                linked.join(int(filters[name][0]), int(slot))
    set_of = linked.labels()

    def by_set(pairs: list[tuple[int, str]]) -> dict[int, list[str]]:
        gathered: dict[int, list[str]] = {}
        for atom, what in pairs:
            gathered.setdefault(int(set_of[slots_of[atom]]), []).append(what)
        return gathered

    refusals = {
        set_: CLASSES if CLASSES in reasons else reasons[0]
        for set_, reasons in by_set(found).items()
    }
    for slots in filters.values():
        if len(np.unique(slots)) == 1:
            alone = "it has a single filter"
            tied = "a grouped convolution ties all its channels together"
            refusals.setdefault(int(set_of[slots[0]]), alone if len(slots) == 1 else tied)
    return Plan(
        members=tuple(
            Member(
                names[module],
                side,
                np.where(
                    [first + channel in reached for channel in range(count)],
                    slots_of[first : first + count],
                    FIXED,
                ),
                functions[module, side],
            )
            for (module, side), (first, count) in sides.items()
            if (module, side) in functions
        ),
        filters=filters,
        sets=set_of,
        refusals=refusals,
        untraced=dict(_untraced(traced, [name for name, _ in layers if name not in filters])),
        passes={set_: frozenset(names) for set_, names in by_set(operations).items()},
    )


def _untraced(model: nn.Module, names: list[str]):
    for name in names:
        parents = itertools.accumulate(name.split("."), lambda one, next_: f"{one}.{next_}")
        attention = any(
            isinstance(model.get_submodule(parent), nn.MultiheadAttention) for parent in parents
        )
        yield name, HEADS if attention else "the network uses its weights without calling it"
