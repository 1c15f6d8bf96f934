"""The best trade-off of each layer: as sparse as it can be before accuracy drops too far."""

from collections.abc import Iterable
from typing import NamedTuple

from stages.lib.core.records import Row


class BestSparsity(NamedTuple):
    """The sparsity chosen for a layer on validation, and the accuracy there with this layer alone
    pruned (None where nothing was to be pruned).
    """

    seed: int
    layer: str
    sparsity: float
    validation_accuracy: float | None


def best_per_layer(rows: Iterable[Row], least_accuracy: float) -> list[BestSparsity]:
    """For each layer the largest sparsity at which it keeps `least_accuracy` on validation.

    rows: method "layer_alone", of one seed. A layer that keeps it nowhere gets sparsity 0:
    it must not be pruned. Layers come in the order of their first row.
    """
    by_layer: dict[str, list[Row]] = {}
    for row in rows:
        by_layer.setdefault(row.layer, []).append(row)
    best = []
    for layer, measured in by_layer.items():
        good = [row for row in measured if row.validation_accuracy >= least_accuracy]
        row = max(good, key=lambda row: row.target_sparsity, default=None)
        sparsity, accuracy = (row.target_sparsity, row.validation_accuracy) if row else (0.0, None)
        best.append(BestSparsity(measured[0].seed, layer, sparsity, accuracy))
    return best
