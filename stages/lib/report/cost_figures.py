"""Figures of accuracy and bytes: all files, packed files, the ladder of sizes."""

import altair as alt
import pandas as pd

from stages.lib.analysis import ladder, pareto, tables
from stages.lib.analysis.tables import Table, of_family
from stages.lib.core import methods
from stages.lib.report import charts, columns
from stages.lib.report.accuracy_figures import close_up_range
from stages.lib.report.charts import Axis, Look, Panel, Plot
from stages.lib.report.columns import Column
from stages.lib.report.figure import Figure, figure
from stages.lib.report.run import CAST, Run

# Names in these charts that several methods share.
SHARED = {
    CAST: ("half precision", Look("#CC79A7", "triangle-up")),
    methods.INTEGER: ("quantized weights", Look("#CC79A7", "square")),
}
ONNX_NAMES = {True: "ONNX Runtime, float32", False: "ONNX Runtime, int8"}
SPEED = (columns.LATENCY, columns.SPEEDUP)
SMALLER = Column("times smaller than the baseline", "smaller", tables.factor)


def _legend_name(method: str, weight_bits: float) -> str:
    """The name of a network in the legend."""
    family = CAST if method == CAST else methods.METHODS[method].family
    if family in SHARED:
        return SHARED[family][0]
    is_onnx = family == methods.ONNX
    return ONNX_NAMES[weight_bits == 32] if is_onnx else methods.METHODS[method].title


def _looks(lines: pd.DataFrame) -> dict[str, Look]:
    """The looks of the legend's names, in the order of the registry."""
    shared, order = dict(SHARED.values()), [*methods.METHODS, CAST]
    found = lines.drop_duplicates("name").sort_values(
        "method", key=lambda key: key.map(order.index)
    )
    return {
        line.name: shared[line.name] if line.name in shared else charts.look(line.method)
        for line in found[["name", "method"]].itertuples(index=False)
    }


def front(networks: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The Pareto front of `cost` and test accuracy, cheapest first: the networks that no other
    network dominates.
    """
    known = networks[networks[cost].notna()]
    on_front = pareto.pareto_front(known[cost].to_numpy(), known.test_accuracy.to_numpy())
    return known[on_front].sort_values([cost, "test_accuracy"], kind="stable")


def against_cost(
    run: Run, name: str, cost: Column, x: Axis, networks: pd.DataFrame, ranked: pd.DataFrame
) -> Figure:
    """Test accuracy of every network against a cost, with the Pareto front.

    name: of the figure.
    cost: its column.
    networks: those with a known cost.
    ranked: those of them that may be on the front.
    """
    best = front(ranked, str(cost.fields))
    lines = networks.assign(
        name=list(map(_legend_name, networks.method, networks.weight_bits)),
        front=networks.index.isin(best.index),
    )
    domain = close_up_range(lines, run.baseline.test_accuracy)
    plot = Plot(
        lines,
        x,
        charts.shares("test_accuracy", "test accuracy", domain),
        _looks(lines),
        [columns.NETWORK, columns.ESTIMATE, columns.FILE, columns.MACS, *SPEED],
    )
    size = alt.condition("datum.front", alt.value(110), alt.value(45))
    panel = plot.steps(best).bars().points(size).panel(height=340)
    return figure(
        run,
        name,
        [panel],
        [(f"Every network by {cost.title}", _networks(lines, cost))],
        front=best[best.test_accuracy >= domain[0]].to_dict("records"),
        floor=domain[0],
        below=int((lines.test_accuracy < domain[0]).sum()),
    )


def _networks(lines: pd.DataFrame, cost: Column) -> Table:
    """A table of networks, the cheapest first."""
    ordered = lines.sort_values([str(cost.fields), "test_accuracy"], kind="stable")
    ratio = SMALLER if cost.fields == "bytes_on_disk" else columns.SPEEDUP
    return columns.table(
        ordered.assign(on_front=ordered.front.map({True: "yes", False: ""})),
        [columns.NETWORK, cost, ratio, columns.ESTIMATE, Column("on the front", "on_front")],
    )


def size(run: Run) -> Figure:
    x = charts.sizes("bytes_on_disk", run.networks.bytes_on_disk, "file")
    return against_cost(run, "size", columns.FILE, x, run.networks, run.networks)


def packed(run: Run) -> Figure | None:
    """Test accuracy of packed files by how many times smaller they are than the baseline's file."""
    lines = of_family(run.summary, methods.PACKED)
    if lines.empty:
        return None
    baseline = run.baseline
    accuracies = [*lines.low, *lines.high, baseline.test_accuracy]
    plot = Plot(
        lines,
        charts.logarithmic(
            "smaller", lines.smaller, "times smaller than the baseline's file", " ×", (1.15, 1.15)
        ),
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
    scale = alt.Scale(domain=list(KINDS.values()), range=["#0072B2", "#56B4E9"])
    bars = base.mark_bar(height={"band": 0.68}, cornerRadiusEnd=2).encode(
        color=alt.Color("kind:N", title=None, scale=scale)
    )
    text = base.mark_text(align="left", dx=6, fontSize=12).encode(text="text1:N")
    chart = alt.layer(bars, text).properties(height=34 * len(rungs)).add_params(charts.NARROW)
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
    """A table of every kept network in every form, means over seeds."""
    fields = [str(column.fields) for column in FORMS]
    found = sizes.groupby(list(tables.KEYS), sort=False, as_index=False)[fields].mean()
    keys = found[["method", "weight_bits", "target_sparsity", "times_smaller"]]
    words = [tables.network(*line) for line in keys.itertuples(index=False, name=None)]
    return columns.table(found.assign(network=words), [columns.NETWORK, *FORMS])


def ladder_of_sizes(run: Run) -> Figure:
    rungs = ladder.rungs(run.summary, run.sizes, run.formats, run.max_drop)
    rungs = rungs.assign(smaller=rungs.bytes.max() / rungs.bytes)
    files = rungs[rungs.kind == ladder.FILE]
    shown = rungs.assign(kind=rungs.kind.map(KINDS))
    return figure(
        run,
        "ladder",
        [_ladder(shown)],
        [
            ("Every form", columns.table(shown, LADDER)),
            ("Every kept network in every form", _forms(run.sizes)),
        ],
        files=files.to_dict("records"),
        least=rungs.to_dict("records")[-1],
        is_calculated=rungs.kind.iloc[-1] == ladder.ESTIMATE,
    )
