"""Chooses filters by what they cost and what they save: the estimated loss without them per
microsecond that the network is faster, by a table of layers measured on this machine.

Kernels compute channels in blocks, so that the first few removed filters may save nothing or even
cost time. A step therefore takes a group of layers to any smaller width at once.
"""

import csv
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from stages.lib.core import records
from stages.lib.core.errors import UserError
from stages.lib.models import prunable
from stages.lib.structured import ranking, removal
from stages.lib.structured.coupling import IN, OUT, Plan

# A step that saves less than this share of the latency of the layers it narrows saves nothing: it
# is noise.
LEAST_SAVING = 0.05
# A group is tried at this many smaller widths.
MOST_STEPS = 32


class Grid(NamedTuple):
    """The microseconds of a layer: float64 [inputs, outputs], with both widths ascending. NaN where
    a pair cannot be built.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    microseconds: np.ndarray

    def at(self, inputs: int, outputs: int) -> float:
        """The latency at two widths, interpolated between the measured ones."""
        if np.isnan(self.microseconds).any():  # depthwise or grouped
            return self._of_pairs(inputs, outputs)
        rows = [np.interp(outputs, self.outputs, row) for row in self.microseconds]
        return float(np.interp(inputs, self.inputs, rows))

    def _of_pairs(self, inputs: int, outputs: int) -> float:
        """As `at`, along the pairs that can be built: of the nearest input width."""
        known = ~np.isnan(self.microseconds)
        if (known.sum(1) == 1).all():  # depthwise: both widths are that of the output
            return float(np.interp(outputs, self.outputs, np.nanmax(self.microseconds, axis=0)))
        rows = [
            np.interp(outputs, self.outputs[there], row[there])
            for row, there in zip(self.microseconds, known, strict=True)
            if there.any()
        ]
        return float(np.interp(inputs, self.inputs[known.any(1)], rows))


Table = Mapping[str, Grid]


def read(path: Path) -> dict[str, Grid]:
    """Reads the table of records.LAYER_LATENCY. UserError if it is missing or damaged."""
    lines = list(csv.DictReader(records.table_text(path).splitlines()))
    found: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
    try:
        for line in lines:
            found[line["layer"]][int(line["inputs"]), int(line["outputs"])] = float(
                line["microseconds"]
            )
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not a table of layers; {records.REMEDY}") from None
    return {name: _grid(pairs) for name, pairs in found.items()}


def _grid(pairs: Mapping[tuple[int, int], float]) -> Grid:
    inputs, outputs = (np.array(sorted(set(side))) for side in zip(*pairs, strict=True))
    filled = [[pairs.get((i, o), np.nan) for o in outputs] for i in inputs]
    return Grid(inputs, outputs, np.array(filled))


Widths = dict[tuple[str, str], int]


class _State:
    """A network while units are removed from it.

    widths: how many channels each side of a layer has left, by layer and side.
    sides: of each group, the sides on which its units have channels, and how many each unit has.
    order: of each group, the units that may be removed, the least important first.
    """

    def __init__(self, model: nn.Module, plan: Plan, losses: np.ndarray, table: Table) -> None:
        self.model, self.plan, self.losses, self.table = model, plan, losses, table
        self.removed = np.zeros(len(plan.groups), dtype=bool)
        self.sizes = np.bincount(plan.groups)
        self.widths: Widths = {}
        layers = prunable.layers(model)
        for name in table:
            self.widths[name, IN], self.widths[name, OUT] = _widths(layers[name])
        self.sides: dict[int, dict[tuple[str, str], np.ndarray]] = defaultdict(dict)
        for member in plan.members:
            self.widths[member.layer, member.side] = len(member.units)
            units = member.units[member.units >= 0]
            for group in np.unique(plan.groups[units]).tolist():
                own = units[plan.groups[units] == group]
                counts = np.bincount(own, minlength=len(plan.groups))
                self.sides[group][member.layer, member.side] = counts
        ordered = np.argsort(losses, kind="stable")
        ordered = ordered[plan.allowed[ordered]]
        self.order = {
            group: ordered[plan.groups[ordered] == group]
            for group in np.unique(plan.groups[ordered]).tolist()
        }

    def next(self, group: int, count: int) -> np.ndarray:
        """The next `count` units of a group to be removed, or fewer."""
        waiting = self.order[group]
        return waiting[~self.removed[waiting]][:count]

    def without(self, units: np.ndarray, group: int) -> Widths:
        """The widths that change without these units of a group."""
        return {
            side: self.widths[side] - int(counts[units].sum())
            for side, counts in self.sides[group].items()
        }

    def latency(self, layers: Collection[str], changed: Widths) -> float:
        """The microseconds of these layers, if some widths change."""
        widths = self.widths | changed
        return sum(
            self.table[name].at(widths[name, IN], widths[name, OUT])
            for name in layers
            if name in self.table
        )

    def weights(self, units: np.ndarray) -> int:
        """How many prunable weights go with these units."""
        without = self.removed.copy()
        without[units] = True
        left = (removal.weights_left(self.model, self.plan, one) for one in (self.removed, without))
        return next(left) - next(left)

    def remove(self, units: np.ndarray, group: int) -> None:
        self.widths |= self.without(units, group)
        self.removed[units] = True


def _widths(layer: nn.Module) -> tuple[int, int]:
    """The numbers of a layer's input and output channels."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


class _Step(NamedTuple):
    """Units of a group to be removed at once. Of two steps, the lesser is the better one: one that
    saves time before one that does not, then that with the least loss per microsecond saved or, if
    no time is saved, per weight removed.
    """

    idle: bool
    price: float
    group: int
    count: int


def _steps(state: _State, group: int, multiple: int) -> list[_Step]:
    """The steps of a group: to each smaller multiple of `multiple`, at least one of them.

    Changes of the loss by units of one group add up, and count by their square, so that a group of
    which much is gone loses more by the same unit.
    """
    gone = state.removed & (state.plan.groups == group)
    left, lost = int(state.sizes[group]) - int(gone.sum()), float(state.losses[gone].sum())
    smaller = range(multiple * (-(-left // multiple) - 1), 0, -multiple)
    steps = []
    for width in smaller[:: -(-len(smaller) // MOST_STEPS) or 1]:
        units = state.next(group, left - width)
        widths = state.without(units, group)
        if len(units) < left - width or min(widths.values()) < 1:
            break
        layers = {layer for layer, _ in widths}
        before = state.latency(layers, {})
        saved = before - state.latency(layers, widths)
        loss = (lost + float(state.losses[units].sum())) ** 2 - lost**2
        idle = saved <= LEAST_SAVING * before
        gain = state.weights(units) if idle else saved
        steps.append(_Step(idle, loss / max(gain, 1e-12), group, len(units)))
    return steps


def choose(
    model: nn.Module,
    plan: Plan,
    sparsity: float,
    multiple: int,
    losses: np.ndarray,
    table: Table,
) -> np.ndarray:
    """The units to remove, bool [units]: step by step those with the least loss per microsecond
    saved, until the share of removed weights comes nearest to `sparsity`. Where no step saves time
    any more, those with the least loss follow.

    multiple: as of `ranking.choose`.
    losses: of each unit, at least 0.
    table: of `read`.

    Raises UserError if too much is refused to reach the sparsity.
    """
    state = _State(model, plan, losses, table)
    whole = sum(weight.numel() for weight in prunable.weights(model).values())
    steps = {group: _steps(state, group, multiple) for group in state.order}
    before, last, reached = state.removed.copy(), 0.0, 0.0
    while reached < sparsity:
        step = min((step for own in steps.values() for step in own), default=None)
        if step is None:
            raise UserError(
                f"sparsity {sparsity:g} with scope latency and widths that are multiples of"
                f" {multiple} cannot be reached: {reached:.4f} is the most, {ranking.limits(plan)}"
            )
        before, last = state.removed.copy(), reached
        state.remove(state.next(step.group, step.count), step.group)
        reached = 1 - removal.weights_left(model, plan, state.removed) / whole
        touched = {layer for layer, _ in state.sides[step.group]}
        for group in steps:
            if touched & {layer for layer, _ in state.sides[group]}:
                steps[group] = _steps(state, group, multiple)
    # The network with all its filters is no answer.
    is_nearer = reached - sparsity <= sparsity - last or not before.any()
    return state.removed if is_nearer else before
