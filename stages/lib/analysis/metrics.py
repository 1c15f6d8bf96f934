"""The main numbers of a run: accuracies and sizes for `dvc metrics diff` and for the comparison of
two runs; and what can be had, for `dvc metrics diff` alone.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.core import methods, paths
from stages.lib.core.records import ALL_LAYERS


def pruned() -> list[str]:
    """The methods that prune and train, which are those for use."""
    families = methods.of_family(methods.UNSTRUCTURED, methods.STRUCTURED)
    return [method.name for method in families if method.trained]


def stages() -> list[str]:
    """The stages whose rows give the numbers, train_baseline first."""
    named = [methods.METHODS[name] for name in ("baseline", *pruned())]
    return list(dict.fromkeys(one.stage for one in (*named, *methods.of_family(methods.INTEGER))))


def _at(rows: pd.DataFrame, method: str, sparsity: float) -> pd.DataFrame:
    """The rows, one per seed, of a method at a target sparsity; may be empty."""
    there = (rows.layer == ALL_LAYERS) & ((rows.target_sparsity - sparsity).abs() < 1e-9)
    return rows[there & (rows.method == method)]


def _int8(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, one per seed, of the 8-bit weights with the smallest file and, of equals, the best
    validation accuracy; may be empty.
    """
    eight = tables.of_family(rows[rows.weight_bits == 8], methods.INTEGER)
    means = eight.groupby("method")[["bytes_on_disk", "validation_accuracy"]].mean()
    best = means.sort_values(["bytes_on_disk", "validation_accuracy"], ascending=[True, False])
    return eight[eight.method.isin(best.index[:1])]


def accuracies(rows: pd.DataFrame, sparsity: float) -> dict[str, pd.DataFrame]:
    """The rows of the baseline, of each pruned network at a sparsity, and of 8-bit weights, by
    name. What was not run is left out.
    """
    chosen = {
        "baseline": _at(rows, "baseline", 0.0),
        **{name: _at(rows, name, sparsity) for name in pruned()},
        "int8": _int8(rows),
    }
    return {name: part for name, part in chosen.items() if len(part)}


def sizes(rows: pd.DataFrame) -> dict[str, int]:
    """The bytes of the files of the baseline and of 8-bit weights, means over seeds. What was not
    run is left out.
    """
    chosen = accuracies(rows, 0.0)
    return {
        name: int(chosen[name].bytes_on_disk.mean())
        for name in ("baseline", "int8")
        if name in chosen
    }


def named(rows: pd.DataFrame, sparsity: float, max_drop: float) -> dict[str, Any]:
    """The numbers for `dvc metrics diff`, means over seeds; no latencies.

    sparsity: at which pruned networks are compared.
    max_drop: of validation accuracy, for the sparsest points (0 if none keeps it).
    """
    means = {
        name: round(float(part.test_accuracy.mean()), 4)
        for name, part in accuracies(rows, sparsity).items()
    }
    reached = {name: tables.sparsest(rows, name, max_drop) for name in pruned()}
    return {
        "test_accuracy": means,
        "sparsest_within": {name: point for name, point in reached.items() if point is not None},
        "bytes_on_disk": sizes(rows),
    }


def packed(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Bytes and test accuracy of each packed file, means over seeds, by name: `packed-20x`."""
    files = tables.of_family(rows, methods.PACKED)
    means = files.groupby(["method", "times_smaller"])[["bytes_on_disk", "test_accuracy"]].mean()
    return {
        paths.network_name(method, times_smaller=times): {
            "bytes": round(size), "test_accuracy": round(accuracy, 4),
        }
        for (method, times), (size, accuracy) in zip(means.index, means.to_numpy(), strict=True)
    }  # fmt: skip


def deployed(selected: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What the recommended files are worth, by role; what is not known is left out.

    selected: the selection, as stored. Its latencies, and so its speedups, differ from run to run.
    """
    numbers = ("bytes", "times_smaller", "latency_ms", "speedup")
    chosen = {role: one["choice"] for role, one in selected["recommended"].items() if one["choice"]}
    return {
        role: {"test_accuracy": one["test"]["accuracy"]}
        | {name: one[name] for name in numbers if one[name] is not None}
        for role, one in chosen.items()
    }
