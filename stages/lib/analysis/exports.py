"""The tables for `dvc plots`, which overlays those of two commits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.lib.analysis import tables
from stages.lib.core import methods, paths
from stages.lib.core.records import ALL_LAYERS


def accuracy_plots(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For each method that prunes whole networks, a table with the columns sparsity and METHOD
    (mean test accuracy); empty if it was not run.
    """
    means = tables.summary(rows[(rows.layer == ALL_LAYERS) & (rows.weight_bits == 32)])
    plots = {}
    for method in methods.of_family(methods.UNSTRUCTURED, methods.STRUCTURED):
        lines = means[means.method == method.name].sort_values("target_sparsity")
        plots[method.name] = pd.DataFrame(
            {"sparsity": lines.target_sparsity, method.name: lines.test_accuracy.round(6)}
        )
    return plots


def quantization_plot(rows: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """A table of bits, mean test accuracy over settings and seeds, and log10 of the mean error and
    of S²/12.
    """
    quantized = tables.of_family(rows, methods.INTEGER).rename(columns={"weight_bits": "bits"})
    errors = np.log10(layers.groupby("bits")[["mse", "theory"]].mean())
    errors = errors.rename(columns={"mse": "log10_error", "theory": "log10_theory"})
    accuracy = quantized.groupby("bits")[["test_accuracy"]].mean()
    return accuracy.join(errors, how="inner").round(6).reset_index()


def packed_plots(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For each method that packs, a table with the columns times_smaller and METHOD (mean test
    accuracy); empty if it was not run.
    """
    plots = {}
    for method in methods.of_family(methods.PACKED):
        means = rows[rows.method == method.name].groupby("times_smaller").test_accuracy.mean()
        plots[method.name] = means.round(6).rename(method.name).reset_index()
    return plots


def budget_plot(selected: Mapping[str, Any]) -> pd.DataFrame:
    """How many times smaller and faster a network gets for each loss of validation accuracy (a
    share); empty cells where nothing is known. selected: the selection, as stored.
    """
    columns = {"smallest": "times_smaller", "fastest": "speedup"}
    lines = [
        {"loss": loss, **{name: (answer[role] or {}).get(name) for role, name in columns.items()}}
        for answer in selected["budgets"]
        for loss in answer["losses"]
    ]
    return pd.DataFrame(lines, columns=["loss", *columns.values()])


def plots(
    rows: pd.DataFrame, layers: pd.DataFrame, curves: pd.DataFrame, selected: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """All tables, by file name: also one of epoch, training accuracy and validation accuracy, means
    over seeds. selected: the selection, as stored.
    """
    columns = ["train_accuracy", "validation_accuracy"]
    return {
        **{
            method + paths.TABLE: plot
            for method, plot in (accuracy_plots(rows) | packed_plots(rows)).items()
        },
        paths.BUDGET_PLOT: budget_plot(selected),
        paths.LEARNING_CURVE: curves.groupby("epoch", as_index=False)[columns].mean().round(6),
        paths.QUANTIZATION_PLOT: quantization_plot(rows, layers),
    }


def save(plots: Mapping[str, pd.DataFrame], directory: Path) -> None:
    """Writes each table into a file of its name."""
    directory.mkdir()
    for name, plot in plots.items():
        plot.to_csv(directory / name, index=False)
