"""What other tools read of a run: a handful of metrics, and tables for `dvc plots`."""

from typing import Any

import numpy as np
import pandas as pd

from stages.lib import tables

COMPARED = [method for method in tables.METHODS if method not in ("baseline", "best_per_layer")]


def _rounded(value: float) -> float:
    return round(float(value), 4)


def metrics(rows: pd.DataFrame, sparsity: float, max_drop: float) -> dict[str, Any]:
    """Named numbers for `dvc metrics diff`: means over seeds, no latency among them.

    test_accuracy of the baseline and of each method at `sparsity`; sparsest_within: the sparsest
    point of each method that keeps validation accuracy within `max_drop` of the baseline's;
    bytes_on_disk of the baseline and of the smallest 8-bit file; what was not run is left out.
    """
    summary = tables.summary(rows)
    dense = summary[summary.method == "baseline"].iloc[0]
    accuracies = {"baseline": _rounded(dense.test_accuracy)}
    sparsest = {}
    for method in COMPARED:
        values = tables.at(rows, method, sparsity)
        if len(values):
            accuracies[method] = _rounded(values.mean())
        reached = tables.sparsest(rows, method, max_drop)
        if reached is not None:
            sparsest[method] = reached
    sizes = {"baseline": int(dense.bytes_on_disk)}
    eight = summary[summary.weight_bits == 8]
    if len(eight):
        best = eight.sort_values(["bytes_on_disk", "validation_accuracy"], ascending=[True, False])
        accuracies["int8"] = _rounded(best.test_accuracy.iloc[0])
        sizes["int8"] = int(best.bytes_on_disk.iloc[0])
    return {
        "test_accuracy": accuracies,
        "sparsest_within": sparsest,
        "bytes_on_disk": sizes,
    }


def accuracy_plots(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For each method a table sparsity, METHOD: mean test accuracy. Empty where it was not run."""
    summary = tables.summary(rows)
    whole = summary[(summary.layer == "all") & (summary.weight_bits == 32)]
    plots = {}
    for method in COMPARED:
        lines = whole[whole.method == method].sort_values("target_sparsity")
        plots[method] = pd.DataFrame(
            {"sparsity": lines.target_sparsity, method: lines.test_accuracy.round(6)}
        )
    return plots


def learning_curve_plot(curves: pd.DataFrame) -> pd.DataFrame:
    """epoch, and training and validation accuracy: means over seeds."""
    columns = ["train_accuracy", "validation_accuracy"]
    return curves.groupby("epoch", as_index=False)[columns].mean().round(6)


def quantization_plot(rows: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """bits, mean test accuracy over settings and seeds, and log10 of the mean error and of
    S²/12.
    """
    quantized = rows[rows.weight_bits < 32].rename(columns={"weight_bits": "bits"})
    errors = np.log10(layers.groupby("bits")[["mse", "theory"]].mean())
    errors = errors.rename(columns={"mse": "log10_error", "theory": "log10_theory"})
    accuracy = quantized.groupby("bits")[["test_accuracy"]].mean()
    return accuracy.join(errors, how="inner").round(6).reset_index()
