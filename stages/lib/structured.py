"""Structured pruning: whole filters, masked and then physically removed.

Filters are ranked by the L1 norm of their weights (Li et al., Pruning Filters for Efficient
ConvNets, 2017). What else falls with a filter (its batch norm, the next layer's inputs) is
found by Torch-Pruning's dependency graph (Fang et al., DepGraph, 2023).
"""

import copy
from collections.abc import Mapping, Sequence

import torch
import torch_pruning
from torch import nn

from stages.lib import masks
from stages.lib.errors import UserError

Filters = dict[str, list[int]]


def prunable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that may lose filters (or units), by name: all prunable ones but the last, whose
    outputs are the classes.
    """
    names = [name.removesuffix(".weight") for name in masks.prunable(model)]
    return {name: model.get_submodule(name) for name in names[:-1]}


def scores(model: nn.Module, scope: str) -> dict[str, torch.Tensor]:
    """How much each filter matters: float64 [filters] per layer, the lowest goes first.

    scope "layer": the filter's rank within its layer, 0…1, so that all layers lose the same share.
    scope "global": the filter's L1 norm over its layer's mean L1 norm, so that layers with larger
    kernels do not win by size alone (after Molchanov et al., 2017).
    """
    if scope not in ("layer", "global"):
        raise ValueError(f"no scope is called {scope}")
    ranked = {}
    for name, layer in prunable_layers(model).items():
        norms = layer.weight.detach().abs().flatten(1).double().sum(1).cpu()
        if scope == "layer":
            order = torch.empty(len(norms), dtype=torch.float64)
            order[torch.argsort(norms, stable=True)] = torch.arange(len(norms)).double() + 0.5
            ranked[name] = order / len(norms)
        else:
            ranked[name] = norms / norms.mean().clamp_min(torch.finfo(torch.float64).tiny)
    return ranked


def _lowest(scored: Mapping[str, torch.Tensor], count: int) -> Filters:
    """The `count` filters with the lowest scores over all layers together."""
    flat = torch.cat(list(scored.values()))
    owners = [(name, index) for name, values in scored.items() for index in range(len(values))]
    chosen: Filters = {}
    for position in torch.argsort(flat, stable=True)[:count].tolist():
        name, index = owners[position]
        chosen.setdefault(name, []).append(index)
    return {name: sorted(indices) for name, indices in chosen.items()}


def _outputs(group) -> list[tuple[nn.Module, list[int]]]:
    """The modules of a group that lose output channels, and which."""
    return [
        (dependency.target.module, indices)
        for dependency, indices in group
        if dependency.handler.__name__ == "prune_out_channels"
    ]


def _groups(model: nn.Module, filters: Filters, image_shape: Sequence[int]) -> list:
    """What falls with the filters, each coupled set of layers (added, depthwise) once."""
    first = next(model.parameters())
    example = torch.zeros(1, *image_shape, device=first.device, dtype=first.dtype)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)

    def group(layer: nn.Module, indices: list[int]):
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        return graph.get_pruning_group(layer, prune, idxs=indices)

    layers = {name: model.get_submodule(name) for name in filters}
    # Layers whose outputs are added lose the filters that any of them names.
    wanted: dict[nn.Module, set[int]] = {}
    for name, layer in layers.items():
        for module, indices in _outputs(group(layer, filters[name])):
            wanted.setdefault(module, set()).update(indices)
    groups, done = [], set()
    for name, layer in layers.items():
        if len(wanted[layer]) >= len(layer.weight):
            raise UserError(
                f"removing {len(wanted[layer])} filters leaves layer {name} without any"
            )
        if layer not in done:
            groups.append(group(layer, sorted(wanted[layer])))
            done |= {module for module, _ in _outputs(groups[-1])}
    return groups


def mask_filters(model: nn.Module, filters: Filters, image_shape: Sequence[int]) -> nn.Module:
    """A copy of the same size in which the filters, and what depends on them alone, are zero.

    A filter's batch norm is zeroed with it: its shift would else go on feeding a constant.
    filters: indices per layer name; image_shape: (channels, height, width).
    """
    pruned = copy.deepcopy(model)
    for group in _groups(pruned, filters, image_shape):
        for module, indices in _outputs(group):
            for parameter in module.parameters(recurse=False):
                parameter.data[indices] = 0
    return pruned


def remove_filters(model: nn.Module, filters: Filters, image_shape: Sequence[int]) -> nn.Module:
    """A copy without the filters: smaller tensors, and the outputs of `mask_filters`' network."""
    small = copy.deepcopy(model)
    for group in _groups(small, filters, image_shape):
        group.prune()
    return small.eval()


def choose_filters(
    model: nn.Module, sparsity: float, scope: str, image_shape: Sequence[int]
) -> Filters:
    """The lowest-scored filters whose removal leaves a share of prunable weights nearest to
    1 − sparsity (0 < sparsity < 1).

    Raises UserError where that removes nothing at all, or every filter of a layer.
    """
    dense = sum(weight.numel() for weight in masks.prunable(model).values())
    scored = scores(model, scope)
    layers = {name: len(values) for name, values in scored.items()}
    setting = f"sparsity {sparsity:g} with scope {scope}"

    def emptied(count: int) -> str | None:
        chosen = _lowest(scored, count)
        return next(
            (name for name, size in layers.items() if len(chosen.get(name, ())) == size),
            None,
        )

    def reached(count: int) -> float:
        small = remove_filters(model, _lowest(scored, count), image_shape)
        return 1 - sum(weight.numel() for weight in masks.prunable(small).values()) / dense

    # Removing one filter more never adds weights, so the count can be bisected: `low` stays below
    # the target, `high` is the first count known to reach it or to empty a layer.
    low, high = 0, sum(layers.values())
    while high - low > 1:
        middle = (low + high) // 2
        if emptied(middle) is None and reached(middle) < sparsity:
            low = middle
        else:
            high = middle
    name = emptied(high)
    if name is not None:
        raise UserError(
            f"{setting} would remove all {layers[name]} filters of layer {name}; lower it, or"
            " widen the network"
        )
    if low == 0:
        nearest = high if abs(reached(high) - sparsity) < sparsity else 0
    else:
        nearest = min(low, high, key=lambda count: abs(reached(count) - sparsity))
    if nearest == 0:
        raise UserError(
            f"{setting} would remove nothing at all: one filter is {reached(1):.3g} of the weights;"
            " raise it, or widen the network"
        )
    return _lowest(scored, nearest)


def largest_difference(one: nn.Module, other: nn.Module, batch: torch.Tensor) -> float:
    """The largest difference of any logit, relative to the largest logit. batch: float [n, c, h,
    w].
    """
    with torch.inference_mode():
        first, second = one.eval()(batch), other.eval()(batch)
    scale = first.abs().max().clamp_min(1e-6)
    return float((first - second).abs().max() / scale)
