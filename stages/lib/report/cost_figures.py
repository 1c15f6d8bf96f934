"""Figures of what networks save: all of them, packed files, the ladder of sizes."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from stages.lib.analysis import ladder, pareto, selection, tables
from stages.lib.analysis.tables import Table, of_family
from stages.lib.core import methods, paths
from stages.lib.core.engines import ENGINES
from stages.lib.report import charts, columns, words
from stages.lib.report.accuracy_figures import close_up_range
from stages.lib.report.charts import Look, Panel, Plot
from stages.lib.report.columns import Column
from stages.lib.report.figure import Figure, figure
from stages.lib.report.run import BASELINE, CAST, Run

BASELINE_NAME = "the baseline"
# What a network may save, by the roles of the selection: a file's bytes or a call's time.
SAVES = {
    selection.SMALLEST: ("file: × smaller", "smaller", Look("#0072B2", "square")),
    selection.FASTEST: ("one image: × faster", "speedup", Look("#D55E00", "circle")),
}
LOOKS = {BASELINE_NAME: Look(charts.INK, "diamond")} | {
    name: look for name, _, look in SAVES.values()
}
# Networks that save less are not drawn: they are no answer.
LEAST_GAIN = 0.9
LABEL_WIDTH = 22
ENGINE = Column("engine", "engine", words.engine)
SMALLER = Column("× smaller", "smaller", tables.factor)
GAIN = Column("saves", ("gain", "name"), lambda gain, name: f"{tables.factor(gain)} ({name})")


def front(lines: pd.DataFrame) -> pd.Series:
    """Whether each line is on the Pareto front of gain and test accuracy: no other dominates it."""
    on_front = pareto.pareto_front(1 / lines.gain.to_numpy(), lines.test_accuracy.to_numpy())
    return pd.Series(on_front, lines.index)


def _chosen(run: Run, role: str) -> dict[str, Mapping[str, Any]]:
    """The networks that the selection has for a role, by name, without the baseline."""
    found = [budget[role] for budget in run.selection["budgets"]]
    found.append(run.selection["recommended"][role]["choice"])
    return {one["name"]: one for one in found if one and one["method"] != BASELINE}


def gains(run: Run) -> pd.DataFrame:
    """What every network saves: a line for its file and a line for its latency. Masked networks
    save neither.

    `gain`: how many times smaller or faster than the baseline; `name`: what it saves; `front`:
    whether it is on the Pareto front; `label`: of chosen networks and of the baseline.
    """
    networks = run.networks
    masked = [name != CAST and methods.METHODS[name].masked for name in networks.method]
    networks = networks[~np.array(masked) & (networks.method != BASELINE)]
    found = []
    for role, (name, column, _) in SAVES.items():
        known = networks[networks[column].notna()]
        if column == "speedup":
            known = known[known.comparable.eq(True)]
        chosen = _chosen(run, role)
        keys = [_key(line) for line in known.itertuples()]
        known = known.assign(
            gain=known[column],
            name=name,
            label=[
                _label(getattr(line, column), name, line) if key in chosen else ""
                for key, line in zip(keys, known.itertuples(), strict=True)
            ],
        )
        found.append(known.assign(front=front(known)))
    dense = run.networks[run.networks.method == BASELINE][:1]
    dense = dense.assign(gain=1.0, name=BASELINE_NAME, label=BASELINE_NAME, front=True)
    return pd.concat([dense, *found], ignore_index=True)


def _key(line: Any) -> str:
    """The name of a network in the selection."""
    if line.method == CAST:
        return ""
    return paths.network_name(
        line.method, line.target_sparsity, int(line.weight_bits), line.times_smaller
    )


def _label(gain: float, name: str, line: Any) -> str:
    """How much a network saves, and what it is, in short lines."""
    engine = f" in {ENGINES[line.engine].title}" if name == SAVES[selection.FASTEST][0] else ""
    what = textwrap.wrap(
        f"{line.network}{engine}".replace(" ×", "\u00a0×").replace(" %", "\u00a0%"), LABEL_WIDTH
    )
    return "\n".join([f"{tables.factor(gain)} {name.split()[-1]}", *what])


def against_gain(run: Run) -> Figure:
    """Test accuracy of every network against what it saves, with the two Pareto fronts."""
    lines = gains(run)
    domain = close_up_range(lines, run.baseline.test_accuracy)
    shown = lines[(lines.gain >= LEAST_GAIN) & (lines.test_accuracy >= domain[0])]
    domain = charts.around([*shown[shown.front].low.clip(lower=domain[0]), *shown.high])
    x = charts.logarithmic(
        "gain", shown.gain, "times smaller or faster than the baseline", " ×", (1.1, 1.5)
    )
    y = charts.shares("test_accuracy", "test accuracy", domain)
    size = {"width": 820, "height": 420}
    fronts = [
        (shown[shown.front & (shown.name == name)].sort_values("gain", kind="stable"), look)
        for name, _, look in SAVES.values()
    ]
    strokes = _strokes(shown, [front for front, _ in fronts], run.baseline.test_accuracy)
    plot = Plot(
        charts.placed(shown, x, y, **size, strokes=strokes), x, y, LOOKS,
        [columns.NETWORK, columns.ESTIMATE, GAIN, columns.FILE, columns.LATENCY, ENGINE],
    )  # fmt: skip
    plot.level(run.baseline.test_accuracy)
    for best, look in fronts:
        plot.steps(best, look)
    points = alt.condition("datum.label != ''", alt.value(130), alt.value(30))
    plot.bars("datum.label").points(points).labels()
    return figure(
        run,
        "pareto",
        [plot.panel(**size)],
        [
            (f"Every network, {name}", _networks(lines[lines.name == name]))
            for name, _, _ in SAVES.values()
            if (lines.name == name).any()
        ],
        hidden=len(lines) - len(shown),
    )


def _strokes(
    shown: pd.DataFrame, fronts: Sequence[pd.DataFrame], level: float
) -> list[tuple[float, float, float, float]]:
    """The lines of the chart, for `charts.placed`: the baseline's level, the error bars of points
    with labels, the steps of the fronts.
    """
    found = [(shown.gain.min() / 2, level, 2 * shown.gain.max(), level)]
    found += [(one.gain, one.low, one.gain, one.high) for one in shown.itertuples() if one.label]
    for front in fronts:
        points = front[["gain", "test_accuracy"]].to_numpy().tolist()
        for (left, first), (right, second) in pairwise(points):
            found += [(left, first, left, second), (left, second, right, second)]
    return found


def _networks(lines: pd.DataFrame) -> Table:
    """A table of networks, those that save most first."""
    ordered = lines.sort_values(["gain", "test_accuracy"], ascending=False, kind="stable")
    return columns.table(
        ordered.assign(on_front=ordered.front.map({True: "yes", False: ""})),
        [
            columns.NETWORK, GAIN._replace(fields="gain", show=tables.factor), columns.ESTIMATE,
            columns.FILE, columns.LATENCY, ENGINE, Column("on the front", "on_front"),
        ],
    )  # fmt: skip


def packed(run: Run) -> Figure | None:
    """Test accuracy of packed files by how many times smaller they are than the baseline's file."""
    lines = of_family(run.summary, methods.PACKED)
    if lines.empty:
        return None
    baseline = run.baseline
    accuracies = [*lines.low, *lines.high, baseline.test_accuracy]
    plot = Plot(
        lines,
        charts.times("smaller", lines.smaller, "times smaller than the baseline's file"),
        charts.shares("test_accuracy", "test accuracy", charts.around(accuracies)),
        charts.looks(lines.method),
        [columns.NAME, SMALLER, columns.FILE, columns.SPARSITY, columns.ESTIMATE],
    )
    plot.level(baseline.test_accuracy).bars().lines().points(70)
    told = columns.table(
        lines,
        [
            Column("made small by", "name"),
            Column("asked for", "times_smaller", "{:g} ×".format),
            columns.FILE,
            SMALLER,
            columns.SPARSITY,
            columns.SPREAD,
            columns.CHANGE,
            Column("Δ on validation", "validation_change", tables.points),
            columns.EPOCHS,
        ],
    )
    smallest = lines.sort_values("smaller").drop_duplicates("method", keep="last")
    return figure(
        run,
        "packed",
        [plot.panel(height=300)],
        [("Packed files", told)],
        smallest=smallest.sort_index().to_dict("records"),
    )


def _ladder(rungs: pd.DataFrame) -> Panel:
    """A chart with a bar for each form of the network."""
    base = alt.Chart(charts.with_texts(rungs, ["bytes", "name", "kind"], LADDER)).encode(
        x=alt.X(
            "bytes:Q",
            axis=None,
            scale=alt.Scale(domain=[0, 1.4 * float(rungs.bytes.max())], nice=False),
        ),
        y=charts.names("name", charts.BROKEN).y,
        tooltip=charts.hover(LADDER),
    )
    scale = alt.Scale(domain=list(KINDS.values()), range=["#0072B2", "#808080"])
    bars = base.mark_bar(height={"band": 0.68}, cornerRadiusEnd=2).encode(
        color=alt.Color("kind:N", title=None, scale=scale)
    )
    text = base.mark_text(align="left", dx=6, fontSize=12).encode(text="text1:N")
    chart = alt.layer(bars, text).properties(height=44 * len(rungs)).add_params(charts.NARROW)
    return Panel("", chart, 420)


KINDS = {ladder.FILE: "file, measured", ladder.ESTIMATE: "calculated"}
LADDER = (
    Column("form", "name"),
    Column("size", "bytes", tables.size),
    Column("times smaller", "smaller", tables.factor),
    Column("how it is known", "kind"),
    columns.NOTE,
)
FORMS = (
    Column("float32, baseline", "dense_bytes", tables.size),
    Column("nonzeros alone", "nonzero_bytes", tables.size),
    Column("index + value", "index_value_bytes", tables.size),
    Column("entropy bound", "entropy_bytes", tables.size),
    Column("zip of the float32 file", "zip_bytes", tables.size),
    Column("the file", "file_bytes", tables.size),
)


def _forms(sizes: pd.DataFrame) -> Table:
    """A table of every kept network in every form."""
    keys = sizes[["method", "weight_bits", "target_sparsity", "times_smaller"]]
    words = [tables.network(*line) for line in keys.itertuples(index=False, name=None)]
    return columns.table(sizes.assign(network=words), [columns.NETWORK, *FORMS])


def ladder_of_sizes(run: Run) -> Figure:
    rungs = ladder.rungs(run.summary, run.deployed_sizes, run.formats, run.max_drop)
    rungs = rungs.assign(smaller=rungs.bytes.max() / rungs.bytes)
    files = rungs[rungs.kind == ladder.FILE]
    shown = rungs.assign(kind=rungs.kind.map(KINDS))
    return figure(
        run,
        "ladder",
        [_ladder(shown)],
        [
            ("Every form", columns.table(shown, LADDER)),
            ("Every kept network in every form", _forms(run.deployed_sizes)),
        ],
        files=files.to_dict("records"),
        least=rungs.to_dict("records")[-1],
        is_calculated=rungs.kind.iloc[-1] == ladder.ESTIMATE,
    )
