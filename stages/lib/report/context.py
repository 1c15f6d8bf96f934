"""The context from which both reports are rendered: the run, its figures, tables and texts."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.analysis.findings import Finding
from stages.lib.analysis.tables import Table
from stages.lib.core.methods import METHODS
from stages.lib.report import class_figures, columns, words
from stages.lib.report.accuracy_figures import headline_table
from stages.lib.report.columns import Column
from stages.lib.report.figure import Figure
from stages.lib.report.run import Run

Choice = Mapping[str, Any]
# At most this many names are listed.
FIRST_NAMES = 3


def throughput(run: Run, choice: Choice) -> str:
    """The images a second of a network in its largest batch; empty if that was not timed."""
    line = run.throughput(choice)
    return "" if line is None else f"{line.throughput:,.0f} (batch {line.batch_size})"


def recommended(run: Run) -> Table:
    """The recommended files, or why there is none."""
    rows = []
    for role, found in run.selection["recommended"].items():
        choice = found["choice"]
        if choice is None:
            nearest = "; ".join(one["words"] for one in found["nearest"])
            why = f"{found['reason']}{f'; nearest: {nearest}' if nearest else ''}"
            rows.append((f"{role}: none", why, "", "", "", "", ""))
            continue
        smaller = tables.smaller(choice["times_smaller"])
        rows.append(
            (
                role + Path(choice["file"]).suffix,
                f"{choice['words']} ({found['reason']})",
                f"{tables.size(choice['bytes'])} ({smaller})",
                tables.loss(choice["validation_loss"]),
                words.test(choice["test"]),
                words.latency(choice),
                throughput(run, choice),
            )
        )
    headers = (
        "file", "what it is", "size", "validation accuracy lost, percentage points",
        "test accuracy", "latency of one image", "images/s",
    )  # fmt: skip
    return Table(headers, rows, left=2)


def refused(filters: pd.DataFrame) -> Table | None:
    """The layers that keep all their filters, with reasons; None if it is only the classifier."""
    layers = filters.drop_duplicates(["layer", "reason"])
    kept = layers[layers.prunable == "no"]
    if len(kept) <= 1:
        return None
    found = kept.groupby("reason", sort=False, as_index=False).agg(
        layers=("layer", "size"), which=("layer", _few)
    )
    return columns.table(
        found, [Column(title, title) for title in ("reason", "which", "layers")], left=2
    )


def not_made(lines: pd.DataFrame | None) -> Table | None:
    """The networks and files that could not be made, those of a method with the same reason on a
    line; None if all were.
    """
    if lines is None or lines.empty:
        return None
    names = [
        tables.network(line.method, int(line.weight_bits), line.target_sparsity, line.times_smaller)
        if line.method in METHODS
        else line.method  # the teacher
        for line in lines.itertuples()
    ]
    found = lines.assign(network=names).groupby(["method", "reason"], sort=False, as_index=False)
    found = found.agg(network=("network", _few), seeds=("seed", _numbers))
    shown = [Column(title, title) for title in ("network", "seeds", "reason")]
    return columns.table(found, shown, left=3)


def _numbers(values: pd.Series) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))


def _few(names: pd.Series) -> str:
    """The first few names, and how many more."""
    names = names.drop_duplicates()
    shown = ", ".join(names[:FIRST_NAMES])
    more = len(names) - FIRST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def pruned(inventory: pd.DataFrame) -> dict[str, Any]:
    """The parameters that are pruned, and those that are not, largest kind first."""
    touched = inventory[inventory.prunable == "yes"]["count"]
    others = inventory[inventory.prunable == "no"].groupby("kind", sort=False)["count"].sum()
    return {
        "tensors": len(touched),
        "share": touched.sum() / inventory["count"].sum(),
        "others": list(others.sort_values(ascending=False, kind="stable").items()),
    }


def shown(value: Any) -> str:
    """The text of a value of a finding's evidence or of the params."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{abs(value):.4g}" if value >= 0 else f"−{abs(value):.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return str(value)


def settings(params: Mapping[str, Any]) -> Table:
    """The lines of params.yaml."""
    rows = []
    for section, value in params.items():
        keys = value if isinstance(value, Mapping) else {"": value}
        rows += [(f"{section}.{key}" if key else section, shown(one)) for key, one in keys.items()]
    return Table(("param", "value"), rows, left=2)


def build(run: Run, findings: Sequence[Finding], figures: Mapping[str, Figure]) -> dict[str, Any]:
    """The context. Its `text` renders a macro of words.j2 by name."""
    return {
        "run": run,
        "findings": findings,
        "figures": figures,
        "text": partial(words.text, run=run),
        "remarks": [words.paragraphs(name, run=run) for name in run.remarks],
        "pruned": pruned(run.inventory),
        "headline": headline_table(run),
        "recommended": recommended(run),
        "throughput": partial(throughput, run),
        "changes": class_figures.changes(run),
        "refused": refused(run.filters),
        "not_made": not_made(run.refused),
        "settings": settings(run.params),
    }
