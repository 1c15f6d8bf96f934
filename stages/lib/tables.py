"""From rows to tables: mean and standard deviation over seeds, in words and units for people."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd
from tabulate import tabulate

# Methods in the order in which the course takes them, with the names that people read.
METHODS = {
    "baseline": "dense baseline",
    "random_uniform": "random, every layer alike",
    "random_global": "random, global",
    "uniform": "uniform (every layer alike)",
    "best_per_layer": "best trade-off per layer",
    "global": "global",
    "baseline_finetune": "dense + fine-tuning",
    "random_global_finetune": "random, global + fine-tuning",
    "uniform_finetune": "uniform + fine-tuning",
    "finetune": "global + fine-tuning",
    "iterative": "iterative",
    "baseline_long": "dense + iterative's epochs",
    "finetune_long": "global + iterative's epochs",
    "structured_layer": "structured, per layer",
    "structured_global": "structured, global",
    "structured_layer_finetune": "structured, per layer + fine-tuning",
    "structured_global_finetune": "structured, global + fine-tuning",
}
MEASURED = (
    "sparsity", "parameters", "nonzero_parameters", "multiply_adds", "extra_epochs",
    "validation_accuracy", "test_accuracy", "bytes_on_disk",
)  # fmt: skip


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of every measured column, `test_accuracy_std` (sample standard deviation, NaN
    for one seed) and `seeds`, per method, layer, weight_bits and target_sparsity.
    """
    grouped = rows.groupby(
        ["method", "layer", "weight_bits", "target_sparsity"],
        sort=False,
        as_index=False,
    )
    means = grouped[list(MEASURED)].mean()
    means["test_accuracy_std"] = grouped["test_accuracy"].std()["test_accuracy"]
    means["seeds"] = grouped["seed"].nunique()["seed"]
    return means


def at(rows: pd.DataFrame, method: str, sparsity: float) -> pd.Series:
    """Test accuracy of a whole-network method at one target sparsity: one number per seed."""
    chosen = rows[
        (rows.method == method)
        & (rows.layer == "all")
        & ((rows.target_sparsity - sparsity).abs() < 1e-9)
    ]
    return chosen.set_index("seed")["test_accuracy"]


def spread(mean: float, std: float) -> str:
    """An accuracy (0…1) in percent, with its standard deviation where there is one."""
    return f"{100 * mean:.1f}" if math.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f}"


def accuracy(values: pd.Series) -> str:
    """Accuracies of several seeds (0…1) as "mean ± standard deviation %"."""
    return spread(values.mean(), values.std()) + " %"


def points(share: float) -> str:
    """A difference of accuracies in points, with its sign: +1.2."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0: no minus before nothing


def percent(share: float) -> str:
    """A share as a percentage without needless digits: 0.8 → 80 %, 0.995 → 99.5 %."""
    return f"{100 * share:.4g} %"


def size(count: float) -> str:
    """Bytes in binary units, as file managers and the course count them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024 or unit == "MiB":
            break
        count /= 1024
    return f"{count:.4g} {unit}"


def count(number: float) -> str:
    """A count with thousands set apart."""
    return f"{number:,.0f}"


def times(number: int, what: str) -> str:
    """A count and its noun: 1 epoch, 5 epochs."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def milliseconds(value: float) -> str:
    """A latency to three significant digits, whatever its size; empty where it is not known."""
    if pd.isna(value):
        return ""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A GitHub table: the first `left` columns aligned left, the others right."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    align = ["left" if index < left else "right" for index in range(len(headers))]
    return tabulate(
        cells, headers, "pipe", colalign=align if cells else None, disable_numparse=True
    )


def sparsest(rows: pd.DataFrame, method: str, max_drop: float) -> float | None:
    """The largest target sparsity at which the method's mean validation accuracy is within
    `max_drop` of the baseline's; 0 where it is at none, None where the method was not run.
    """
    means = summary(rows[rows.layer == "all"])
    dense = means[means.method == "baseline"].validation_accuracy.iloc[0]
    points = means[means.method == method]
    if points.empty:
        return None
    good = points[points.validation_accuracy >= dense - max_drop]
    return float(good.target_sparsity.max()) if len(good) else 0.0
