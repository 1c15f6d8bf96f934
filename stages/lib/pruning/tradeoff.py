"""The best trade-off of each layer: its highest sparsity before accuracy drops too far."""

from collections.abc import Iterable

from stages.lib.core.records import BestSparsity, Row


def best_per_layer(rows: Iterable[Row], least_accuracy: float) -> list[BestSparsity]:
    """The highest sparsity of each layer at which validation accuracy is at least `least_accuracy`.

    rows: of method "layer_alone" and one seed. A layer that is accurate enough at none of its
    sparsities gets 0. Layers are in the order of their first rows.
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
