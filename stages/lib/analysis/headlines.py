"""The few numbers that stand for a run, and the rows they are taken from.

Each is named after a question, not after a method: of several methods that could answer it, the
one that the validation images prefer does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.core.records import ALL_LAYERS

PRUNED: Mapping[str, tuple[str, ...]] = {
    "global": ("global",),
    "finetune": ("finetune",),
    "iterative": ("iterative",),
    "structured_finetune": ("structured_layer_finetune", "structured_global_finetune"),
}


def _preferred(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of several methods those of one: the highest mean validation accuracy, then the
    first name.
    """
    if rows.empty:
        return rows
    return rows[rows.method == rows.groupby("method").validation_accuracy.mean().idxmax()]


def pruned_at(rows: pd.DataFrame, name: str, sparsity: float) -> pd.DataFrame:
    """The rows, one per seed, that answer for PRUNED's `name` at a target sparsity; may be none."""
    there = (rows.layer == ALL_LAYERS) & ((rows.target_sparsity - sparsity).abs() < 1e-9)
    return _preferred(rows[there & rows.method.isin(PRUNED[name])])


def baseline(rows: pd.DataFrame) -> pd.DataFrame:
    """The dense network's rows, one per seed."""
    return rows[rows.method == "baseline"]


def int8(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, one per seed, of the 8-bit setting with the smallest file; may be none."""
    eight = rows[rows.weight_bits == 8]
    sizes = eight.groupby("method").bytes_on_disk.mean()
    return _preferred(eight[eight.method.isin(sizes.index[sizes == sizes.min()])])


def accuracies(rows: pd.DataFrame, sparsity: float) -> dict[str, pd.DataFrame]:
    """By name the rows whose accuracies stand for a run; what was not run is left out."""
    chosen = {
        "baseline": baseline(rows),
        **{name: pruned_at(rows, name, sparsity) for name in PRUNED},
        "int8": int8(rows),
    }
    return {name: found for name, found in chosen.items() if len(found)}


def sparsest(rows: pd.DataFrame, max_drop: float) -> dict[str, float]:
    """By name the sparsest point that keeps validation accuracy within `max_drop` of the
    baseline's (0: none does); what was not run is left out.
    """
    reached = {
        name: [tables.sparsest(rows, method, max_drop) for method in methods]
        for name, methods in PRUNED.items()
    }
    known = {name: [one for one in ones if one is not None] for name, ones in reached.items()}
    return {name: max(ones) for name, ones in known.items() if ones}


def sizes(rows: pd.DataFrame) -> dict[str, int]:
    """By name the bytes of a file, mean over seeds; what was not run is left out."""
    chosen = {"baseline": baseline(rows), "int8": int8(rows)}
    return {name: int(part.bytes_on_disk.mean()) for name, part in chosen.items() if len(part)}


@dataclass(frozen=True)
class Latency:
    """median: milliseconds, over seeds; spread: the factor by which a seed's median and
    interquartile range together leave it, at least 1.
    """

    median: float
    spread: float


def _latency(lines: pd.DataFrame) -> Latency:
    median = float(lines.latency_ms.median())
    away = lines.latency_ms / median
    spread = away.where(away >= 1, 1 / away) * (1 + lines.latency_iqr_ms / lines.latency_ms)
    return Latency(median, float(spread.max()))


def latencies(
    rows: pd.DataFrame, timed: pd.DataFrame, formats: pd.DataFrame, sparsity: float
) -> dict[str, Latency]:
    """By name those of the dense network, of the small one of structured pruning at `sparsity`,
    and of the dense one in half formats. timed: in turns, by seed; formats: by number format.
    """
    small = pruned_at(rows, "structured_finetune", sparsity).method.unique()
    # Fine-tuning changes no shape, hence no latency: the benchmark has the network before it.
    shapes = {"baseline": "baseline"} | {
        method.removesuffix("_finetune"): "structured" for method in small
    }
    asked = (timed.method == "baseline") | ((timed.target_sparsity - sparsity).abs() < 1e-9)
    timed = timed[asked]
    # float32 is the baseline of the other table already.
    formats = formats[(formats.network == "baseline") & (formats.dtype != "float32")]
    named = pd.concat(
        [timed.assign(name=timed.method.map(shapes)), formats.assign(name=formats.dtype)]
    ).dropna(subset=["name", "latency_ms", "latency_iqr_ms"])
    return {
        f"{name}.{device}.batch_{batch}": _latency(lines)
        for (name, device, batch), lines in named.groupby(
            ["name", "device", "batch_size"], sort=False
        )
    }
