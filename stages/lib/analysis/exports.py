"""What other tools read of a run: a handful of metrics, and tables for `dvc plots`."""

from typing import Any

import numpy as np
import pandas as pd

from stages.lib.analysis import headlines, tables
from stages.lib.core import paths

COMPARED = [method for method in tables.METHODS if method not in ("baseline", "best_per_layer")]


def metrics(rows: pd.DataFrame, sparsity: float, max_drop: float) -> dict[str, Any]:
    """Named numbers for `dvc metrics diff`: means over seeds, no latency among them.

    test_accuracy of the baseline, of the named methods (`headlines`) at `sparsity` and of 8-bit
    weights; sparsest_within: the sparsest point of each method that keeps validation accuracy
    within `max_drop` of the baseline's; bytes_on_disk of the baseline and of the smallest 8-bit
    file; what was not run is left out.
    """
    chosen = headlines.accuracies(rows, sparsity)
    return {
        "test_accuracy": {
            name: round(float(part.test_accuracy.mean()), 4) for name, part in chosen.items()
        },
        "sparsest_within": headlines.sparsest(rows, max_drop),
        "bytes_on_disk": headlines.sizes(rows),
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


def plots(
    rows: pd.DataFrame, layers: pd.DataFrame, curves: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """All tables that `dvc plots` draws, by the name of the file."""
    return {
        **{paths.table_name(method): plot for method, plot in accuracy_plots(rows).items()},
        paths.LEARNING_CURVE: learning_curve_plot(curves),
        paths.QUANTIZATION_PLOT: quantization_plot(rows, layers),
    }
