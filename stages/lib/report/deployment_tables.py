"""The report's tables of what is deployed: packed files, engines, the ladder of every kept file."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.analysis.tables import Table
from stages.lib.report import report_tables

LADDER = {
    "dense_bytes": "float32, dense",
    "nonzero_bytes": "nonzeros alone",
    "index_value_bytes": "index + value",
    "entropy_bytes": "entropy bound",
    "zip_bytes": "zip of the float32 file",
    "file_bytes": "the file",
}


def packed_lines(everything: pd.DataFrame) -> pd.DataFrame:
    """The packed networks of `Run.everything`, with `smaller`: how many times smaller than the
    dense float32 file theirs are.
    """
    dense = everything[everything.method == "baseline"].bytes_on_disk.iloc[0]
    lines = everything[everything.method.isin(tables.PACKED)]
    return lines.assign(smaller=dense / lines.bytes_on_disk)


def packed(everything: pd.DataFrame) -> Table:
    """Packed files by what makes them small and how small they were to be."""
    dense = everything[everything.method == "baseline"].iloc[0]
    rows = [
        (
            tables.PACKED[line.method],
            f"{line.times_smaller:g} ×",
            tables.size(line.bytes_on_disk),
            f"{line.smaller:.1f} ×",
            tables.percent(round(line.sparsity, 3)),
            tables.spread(line.test_accuracy, line.test_accuracy_std),
            f"{100 * (line.test_accuracy - dense.test_accuracy):+.1f}",
            f"{100 * (line.validation_accuracy - dense.validation_accuracy):+.1f}",
            tables.count(line.extra_epochs),
        )
        for line in packed_lines(everything).itertuples()
    ]
    headers = (
        "made small by", "asked for", "file", "smaller than float32", "zeros", "test accuracy, %",
        "Δ, points", "Δ on validation", "extra epochs",
    )  # fmt: skip
    return Table(headers, rows)


def engine_lines(engines: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds of what was timed, in the order of the first seed: KEYS[:3] of `tables`,
    engine, batch_size, threads, isa, latency_ms, latency_iqr_ms, `faster` (than the dense network
    in torch, in turns), runs and note.
    """
    keys = ["method", "engine", "target_sparsity", "weight_bits", "batch_size"]
    found = engines.groupby(keys, sort=False, as_index=False).agg(
        threads=("threads", "first"),
        isa=("isa", "first"),
        latency_ms=("latency_ms", "median"),
        latency_iqr_ms=("latency_iqr_ms", "median"),
        relative=("relative_to_eager", "median"),
        runs=("runs", "sum"),
        note=("note", "first"),
    )
    return found.assign(faster=1 / found.relative)


def network(method: str, weight_bits: int, sparsity: float) -> str:
    """A network without its engine: "structured, global + fine-tuning, 80 %, int8"."""
    origin = method
    for prefix, name in (
        ("onnx_structured_layer", "structured_layer_finetune"),
        ("onnx_structured_global", "structured_global_finetune"),
        ("onnx_finetune", "finetune"),
        ("onnx", "baseline"),
    ):
        if method.startswith(prefix):
            origin = name
            break
    text = tables.network(origin, 32, sparsity)
    return text if weight_bits == 32 else f"{text}, int8"


def engines(timed: pd.DataFrame, everything: pd.DataFrame, agreements: pd.DataFrame) -> Table:
    """Every network in every engine: latency beside accuracy, and how far the file agrees with
    torch.
    """
    accuracy = everything[everything.layer == "all"].set_index(list(tables.KEYS[:3]))
    agreed = agreements.groupby(list(tables.KEYS[:3])).agreement.mean()
    rows = []
    for line in engine_lines(timed).sort_values("batch_size", kind="stable").itertuples():
        key = (line.method, line.target_sparsity, line.weight_bits)
        worth = accuracy.loc[[key]].iloc[0] if key in accuracy.index else None
        rows.append(
            (
                network(line.method, line.weight_bits, line.target_sparsity),
                line.engine,
                str(line.batch_size),
                tables.milliseconds(line.latency_ms),
                tables.milliseconds(line.latency_iqr_ms),
                tables.factor(line.faster),
                "" if worth is None else f"{100 * worth.test_accuracy:.1f}",
                f"{100 * agreed[key]:.1f}" if key in agreed.index else "",
                tables.count(line.runs),
                "" if pd.isna(line.note) else str(line.note),
            )
        )
    headers = (
        "network", "engine", "batch", "latency, ms", "spread, ms", "faster than eager float32",
        "test accuracy, %", "top-1 agreement with torch, %", "runs", "note",
    )  # fmt: skip
    return Table(headers, rows, left=2)


def ladder(sizes: pd.DataFrame) -> Table:
    """Every kept network in every form: means over seeds."""
    grouped = sizes.groupby(list(tables.KEYS), sort=False, as_index=False)[list(LADDER)].mean()
    rows = [
        (
            tables.network(line.method, line.weight_bits, line.target_sparsity, line.times_smaller),
            *(tables.size(getattr(line, name)) for name in LADDER),
        )
        for line in grouped.itertuples()
    ]
    return Table(("network", *LADDER.values()), rows)


def _latency(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not timed"
    faster = 1 / found["relative_mean_over_seeds"]
    return f"{tables.milliseconds(found['milliseconds'])} ms ({faster:.1f} × faster)"


def _recommended(role: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    chosen = found["chosen"]
    if chosen is None:
        near = "; ".join(one["words"] for one in found["nearest"])
        return (f"{role}: none", f"{found['reason']}{f'; nearest: {near}' if near else ''}",
                *("",) * 4)  # fmt: skip
    test = chosen["test"]
    return (
        chosen["file"],
        chosen["words"],
        f"{tables.size(chosen['bytes'])} ({chosen['times_smaller_than_dense']:.1f} × smaller)",
        tables.points(-chosen["validation"]["drop"]),
        tables.estimate(test["accuracy"], test["low"], test["high"]),
        _latency(chosen["latency"]),
    )


def recommendation(card: Mapping[str, Any]) -> Table:
    """The files that `package` put into its folder. card: its model card."""
    rows = [_recommended(role, card[role]) for role in ("smallest", "fastest")]
    headers = (
        "file", "what it is", "size", "Δ on validation, points", "test accuracy",
        "latency, batch 1",
    )  # fmt: skip
    return Table(headers, rows, left=2)


def budgets(card: Mapping[str, Any]) -> str:
    """What the choice was asked for, in a sentence."""
    asked = card["budgets"]
    loss = report_tables.points(asked["max_accuracy_drop"])
    parts = [f"at most {loss} of validation accuracy lost"]
    if asked["max_bytes"] is not None:
        parts.append(f"at most {asked['max_bytes']:,} bytes")
    if asked["max_latency_ms"] is not None:
        parts.append(f"at most {asked['max_latency_ms']:g} ms for one image")
    return (
        f"Chosen on validation images: {', '.join(parts)} (`package`). The files, their hashes and"
        " how to load them are in `artifacts/deploy/model_card.json`; Δ is the mean over seeds,"
        " test accuracy that of the file, with its interval over images."
    )
