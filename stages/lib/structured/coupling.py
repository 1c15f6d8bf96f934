"""Which channels of a network are coupled: those that must be removed together with a filter.

Torch-Pruning (Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023) traces the network
and knows, operation by operation, how the channels of one layer depend on those of the next. Its
graph is walked once here. The result is a `Plan`: plain arrays that hold for every copy of the
network.
"""

import itertools
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch_pruning
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import index_mapping, shape_infer
from torch_pruning.ops import OPTYPE

from stages.lib.core import errors
from stages.lib.core.errors import UserError
from stages.lib.models import prunable
from stages.lib.models.modes import input_like
from stages.lib.models.origins import copied

OUT, IN = "out", "in"
# The unit of a channel that cannot be removed (of the image): the last index of an array of units.
FIXED = -1

# No gate couples so many root channels to one channel: beyond, the walk has gone wrong.
MOST_ROOTS = 16

CLASSES = "its outputs are the classes"
HEADS = "its channels are split into attention heads"
# Mean and variance over channels depend on their number: a zero channel still counts.
ACROSS = {
    OPTYPE.LN: "a layer norm runs over its channels",
    OPTYPE.GN: "a group norm runs over its channels",
    OPTYPE.MHA: HEADS,
    OPTYPE.LSTM: "a recurrent layer reads its channels",
    OPTYPE.EMBED: "an embedding is added to its channels",
}
LOST = "its channels are rearranged in a way that Torch-Pruning cannot follow"
FUNCTIONS = {"NativeLayerNorm": ACROSS[OPTYPE.LN], "NativeGroupNorm": ACROSS[OPTYPE.GN]}
# Operations between layers, which have no channels of their own.
BETWEEN = (OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.SPLIT, OPTYPE.SLICE)


@dataclass(frozen=True)
class Member:
    """One side (input or output) of a layer that loses channels.

    units: int [channels of that side], the unit of each channel, or FIXED.
    prune: Torch-Pruning's function (layer, indices) that removes channels from this side.
    """

    layer: str
    side: str
    units: np.ndarray
    prune: Callable[[nn.Module, list[int]], object]


@dataclass(frozen=True)
class Plan:
    """What can be removed from a network, and what must be removed with it.

    A unit is the least that can be removed: coupled channels of several layers. In a grouped
    convolution, a unit has the same position in each group, so that the groups stay equally large.
    Layers whose filters share units form a coupled group, as in DepGraph.

    members: all sides of layers that can lose channels.
    filters: the unit of each filter (or neuron) of the traced prunable layers, by layer name, in
        the network's order.
    groups: int [units], the coupled group of each unit.
    refusals: why the units of a group are not removed, by group.
    untraced: why a prunable layer has no units, by layer name.
    operations: autograd's names of the operations that a group's channels pass through, by group.
    """

    members: tuple[Member, ...]
    filters: dict[str, np.ndarray]
    groups: np.ndarray
    refusals: dict[int, str]
    untraced: dict[str, str]
    operations: dict[int, set[str]]

    @property
    def allowed(self) -> np.ndarray:
        """Which units may be removed: bool [units]."""
        return ~np.isin(self.groups, list(self.refusals))

    def group_of(self, layer: str) -> int:
        """The coupled group of a traced layer's filters."""
        return int(self.groups[self.filters[layer][0]])

    @property
    def refused(self) -> dict[str, str]:
        """The reason for each layer that keeps all its filters."""
        reasons = {name: self.refusals.get(self.group_of(name)) for name in self.filters}
        return {name: reason for name, reason in reasons.items() if reason} | self.untraced

    def coupled_with(self, layer: str) -> list[str]:
        """The other layers of this layer's coupled group."""
        if layer not in self.filters:
            return []
        group = self.group_of(layer)
        return [name for name in self.filters if name != layer and self.group_of(name) == group]


@contextmanager
def _only_flattening() -> Iterator[None]:
    """Limits what Torch-Pruning handles as a flattening of [channels, height, width] into features.

    Version 1.6.1 takes every reshape for one (with a torch that saves sizes under their new name):
    a channel shuffle then divides by zero, and attention windows multiply channels.
    """
    update = index_mapping.update_reshape_index_mapping

    def guarded(graph: torch_pruning.DependencyGraph, node) -> None:
        # Unknown to autograd, or 2-D: then Torch-Pruning looks at what follows.
        size = getattr(node.grad_fn, "_saved_self_sym_sizes", None) or (0, 0)
        features = (
            shape_infer.infer_in_channels_recursively(graph, output, [0]) for output in node.outputs
        )
        if len(size) == 2 or (
            len(size) == 4 and next(filter(None, features), None) == math.prod(size[1:])
        ):
            update(graph, node)

    index_mapping.update_reshape_index_mapping = guarded
    try:
        yield
    finally:
        index_mapping.update_reshape_index_mapping = update


def _trace(model: nn.Module, image_shape: Sequence[int]) -> tuple:
    """Torch-Pruning's graph of a copy of the network, and the copy's outputs."""
    outputs = []

    def collect(output: object) -> object:
        outputs.extend(torch_pruning.utils.flatten_as_list(output))
        return output

    # Tracing follows autograd's graph, and its warnings are of no use to users.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        warnings.catch_warnings(action="ignore"),
        _only_flattening(),
    ):
        model = copied(model).eval().requires_grad_()
        model = model.to(memory_format=torch.contiguous_format)
        first = input_like(model)
        example = torch.zeros(1, *image_shape, device=first.device, dtype=first.dtype)
        try:
            # Run the network alone first: Torch-Pruning hides its errors behind others.
            logits = model(example)
            if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
                raise TypeError("it does not return one tensor of logits [n, classes]")
            graph = torch_pruning.DependencyGraph().build_dependency(
                model, (example,), output_transform=collect, verbose=False
            )
        except Exception as error:  # noqa: BLE001 - whatever a user's network may raise
            raise UserError(
                "structured pruning cannot trace the network on one image of shape"
                f" {tuple(image_shape)}: {type(error).__name__}: {errors.reason(error)}"
            ) from None
    return graph, outputs


def _side(function: Callable) -> str:
    """The side that a function of Torch-Pruning changes. Layers that pass channels on (norms,
    depthwise convolutions) have one function for both sides, which counts as OUT.
    """
    return IN if function.__name__ == "prune_in_channels" else OUT


def _operation(node) -> str:
    """Autograd's name of the operation of a node between layers; "" for a layer."""
    return node.grad_fn.name() if node.type in BETWEEN and hasattr(node.grad_fn, "name") else ""


# A _HybridIndex is a channel and the root channel that leads to it.
def _mapped(dependency, indices: list[_HybridIndex]) -> list[_HybridIndex]:
    """The channels at the other end of a dependency; −1 if Torch-Pruning does not know them."""
    try:
        for mapping in dependency.index_mapping:
            indices = mapping(indices) if mapping is not None else indices
    except IndexError:  # a split into parts of unknown size
        return [_HybridIndex(-1, index.root_idx) for index in indices]
    return indices


class _Walker:
    """Follows channels through Torch-Pruning's graph to all channels that they are coupled with.

    Unlike in Torch-Pruning's own groups, two root channels that reach the same channel are coupled
    (the halves of a gated unit).

    The channels of all sides are numbered.

    numbers, functions: by module and side.
    edges: pairs of coupled channels.
    reached: the channels that a walk has reached.
    obstacles, operations: what a walk met, with the channel from which it started.
    """

    def __init__(self, graph: torch_pruning.DependencyGraph, outputs: list[torch.Tensor]) -> None:
        self.graph, self.outputs = graph, {output.grad_fn for output in outputs}
        self.modules = set(graph.model.modules())
        pairs = [(one, own) for one in self.modules for own in one.parameters(recurse=False)]
        uses = Counter(parameter for _, parameter in pairs)
        self.shared = {module for module, parameter in pairs if uses[parameter] > 1}
        # The most channels of any layer.
        self.widest = max(
            max(parameter.shape, default=1) * getattr(module, "groups", 1)
            for module, parameter in pairs
        )
        self.count = 0
        self.numbers: dict[tuple[nn.Module, str], range] = {}
        self.functions: dict[tuple[nn.Module, str], Callable] = {}
        self.edges: list[tuple[int, int]] = []
        self.reached: set[int] = set()
        self.obstacles: list[tuple[int, str]] = []
        self.operations: list[tuple[int, str]] = []

    def numbered(self, module: nn.Module, side: str) -> range | None:
        """The numbers of a side's channels; None for an operation without channels of its own."""
        if module in self.modules and (module, side) not in self.numbers:
            pruner = self.graph.get_pruner_of_module(module)
            size = (pruner.get_in_channels if side == IN else pruner.get_out_channels)(module)
            if size is not None:
                self.numbers[module, side] = channels = range(self.count, self.count + size)
                self.count += size
                # The same position of each group is coupled: the groups stay equally large.
                if isinstance(module, nn.modules.conv._ConvNd) and not (
                    module.groups == module.in_channels == module.out_channels
                ):
                    period = size // module.groups
                    self.edges += [(channels[i], channels[i % period]) for i in range(size)]
        return self.numbers.get((module, side))

    def obstacle(self, node, side: str) -> str | None:
        """Why channels that reach this side of a node cannot be removed; None if they can."""
        module = node.module
        if side == OUT and node.grad_fn in self.outputs:
            return CLASSES
        if node.type in ACROSS:
            return ACROSS[node.type]
        if node.type == OPTYPE.PARAMETER:
            name = self.graph._param_to_name[module]
            return f"the network's own parameter {name} acts on its channels"
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
            if module.transposed:
                return "a grouped transposed convolution reads or writes its channels"
            if module.groups == module.out_channels != module.in_channels:
                return "a convolution with one filter per group of channels reads or writes them"
        if module in self.shared:
            return "its weights, or a coupled layer's, are shared with another layer"
        return next((why for name, why in FUNCTIONS.items() if name in _operation(node)), None)

    def walk(self, layer: nn.Module) -> None:
        """Follows those output channels of a layer that no earlier walk has reached.

        Behind an obstacle no channel can be removed. From there on, the walk no longer
        distinguishes channels and assigns all to the first.
        """
        root = self.numbered(layer, OUT)
        function = self.graph.get_pruner_of_module(layer).prune_out_channels
        rest = [index for index, channel in enumerate(root) if channel not in self.reached]
        start = [_HybridIndex(index, index) for index in rest]
        waiting = [(self.graph.module2node[layer], function, start)]
        visited: dict[tuple, set[_HybridIndex]] = defaultdict(set)
        merged = None
        while waiting:
            node, function, indices = waiting.pop()
            if not indices:
                continue
            side, first = _side(function), root[rest[0]]
            channels, known = self.numbered(node.module, side), visited[node, side]
            limit = self.widest if channels is None else len(channels)
            inside = [index for index in indices if 0 <= index.idx < limit]
            obstacle = LOST if len(inside) < len(indices) else self.obstacle(node, side)
            if merged is None and (obstacle or len(known) > MOST_ROOTS * limit):
                obstacle = obstacle or LOST
                merged = indices[0].root_idx
            if merged is not None:
                inside = [_HybridIndex(index.idx, merged) for index in inside]
            new = [index for index in dict.fromkeys(inside) if index not in known]
            known.update(new)
            if obstacle:
                self.obstacles.append((first, obstacle))
            if not new:
                continue
            if operation := _operation(node):
                self.operations.append((first, operation))
            if channels is not None:
                self.functions[node.module, side] = function
                self.edges += [(channels[index.idx], root[index.root_idx]) for index in new]
                self.reached.update(channels[index.idx] for index in new)
            waiting += [
                (dependency.target, dependency.handler, _mapped(dependency, new))
                for dependency in node.dependencies
                if dependency.is_triggered_by(function)
            ]


def _components(count: int, edges: Sequence[tuple[int, int]]) -> np.ndarray:
    """The connected component of each node, int [count], numbered by their first nodes."""
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), tuple(ends)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def couple(model: nn.Module, image_shape: Sequence[int]) -> Plan:
    """Traces the network and finds its units and coupled groups. Refuses the groups of which it is
    known that they cannot be removed.

    image_shape: (channels, height, width). Raises UserError if the network cannot be traced.
    """
    walker = _Walker(*_trace(model, image_shape))
    traced = walker.graph.model
    layers = prunable.layers(traced)
    for layer in layers.values():
        if layer in walker.graph.module2node:
            walker.walk(layer)
    units = _components(walker.count, walker.edges)
    sides = {name: walker.numbers.get((layer, OUT)) for name, layer in layers.items()}
    filters = {name: units[channels] for name, channels in sides.items() if channels is not None}
    groups = _components(
        units.max(initial=-1) + 1, [(own[0], unit) for own in filters.values() for unit in own]
    )

    def by_group(pairs: list[tuple[int, str]]) -> dict[int, list[str]]:
        gathered = defaultdict(list)
        for channel, text in pairs:
            gathered[int(groups[units[channel]])].append(text)
        return gathered

    refusals = {
        group: CLASSES if CLASSES in reasons else reasons[0]
        for group, reasons in by_group(walker.obstacles).items()
    }
    for own in filters.values():
        if len(np.unique(own)) == 1:
            tied = "a grouped convolution ties all its channels together"
            reason = tied if len(own) > 1 else "it has a single filter"
            refusals.setdefault(int(groups[own[0]]), reason)
    layer_of = {module: name for name, module in traced.named_modules()}
    movable = np.where(np.isin(np.arange(walker.count), list(walker.reached)), units, FIXED)
    return Plan(
        members=tuple(
            Member(layer_of[module], side, movable[walker.numbers[module, side]], function)
            for (module, side), function in walker.functions.items()
        ),
        filters=filters,
        groups=groups,
        refusals=refusals,
        untraced={name: _untraced(traced, name) for name in layers if name not in filters},
        operations={group: set(names) for group, names in by_group(walker.operations).items()},
    )


def _untraced(model: nn.Module, name: str) -> str:
    """Why a layer is not in the graph."""
    parents = itertools.accumulate(name.split("."), "{}.{}".format)
    attention = any(
        isinstance(model.get_submodule(parent), nn.MultiheadAttention) for parent in parents
    )
    return HEADS if attention else "the network uses its weights without calling it"
