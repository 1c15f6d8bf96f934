"""Charts of accuracy: against sparsity, before and after training, layer by layer, by epoch."""

import altair as alt
import pandas as pd

from stages.lib.analysis import tables
from stages.lib.report import charts
from stages.lib.report.charts import Panel

# How far below the dense network the close-up reaches.
CLOSE_UP = 0.1
# Room for marks at 100 %, as a share of the axis.
ABOVE = 0.02
# A network of more layers than this gets a map of narrower rows.
MANY_LAYERS = 24
# What fine-tuning starts from, and what it makes of it.
RECOVERIES = {
    "random_global": "random_global_finetune",
    "uniform": "uniform_finetune",
    "global": "finetune",
    "structured_layer": "structured_layer_finetune",
    "structured_global": "structured_global_finetune",
}


def points(summary: pd.DataFrame) -> pd.DataFrame:
    """The whole float32 networks of a summary with bounds, with what a hover says of them and
    `removed`, the sparsity that was asked for, or came out where none was.
    """
    lines = summary[(summary.layer == "all") & (summary.weight_bits == 32)]
    lines = lines[lines.method.isin(tables.METHODS)]
    return lines.assign(
        name=lines.method.map(tables.METHODS),
        removed=lines.target_sparsity.where(lines.target_sparsity > 0, lines.sparsity),
        sparsity_text=(lines.sparsity.round(4)).map(tables.percent),
        accuracy_text=[
            tables.estimate(line.test_accuracy, line.low, line.high) for line in lines.itertuples()
        ],
        epochs_text=lines.extra_epochs.map(tables.count),
        work_text=[
            f"{tables.count(line.macs)} ({tables.factor(line.reduction)} fewer)"
            for line in lines.itertuples()
        ],
        nonzero_text=[
            f"{tables.count(line.nonzero_parameters)} ({tables.factor(line.compression)} fewer)"
            for line in lines.itertuples()
        ],
    )


def dense_accuracy(summary: pd.DataFrame) -> float:
    return summary[summary.method == "baseline"].test_accuracy.iloc[0]


def close_up_range(lines: pd.DataFrame, dense: float) -> list[float]:
    """The accuracies from CLOSE_UP below the dense network's to a little above the best."""
    floor = max(0.0, dense - CLOSE_UP)
    return [floor, min(1 + ABOVE * CLOSE_UP, max(dense, lines.high.max()) + 0.005)]


def _by_sparsity(lines: pd.DataFrame, domain: list[float]) -> Panel:
    """lines: of `points`."""
    dense = lines[lines.method == "baseline"]
    others = lines[lines.method != "baseline"].sort_values("removed")
    others = others.assign(untrained=[charts.LOOKS[method].untrained for method in others.method])
    # Fields that the chart does not show would only make it heavier.
    shown = others[
        ["name", "untrained", "removed", "test_accuracy", "low", "high", "sparsity_text",
         "accuracy_text", "epochs_text", "work_text", "nonzero_text"]
    ]  # fmt: skip
    looks = charts.by_name(charts.looks_of(others.method))
    picked = charts.picked()
    scale = alt.Scale(domain=domain, nice=False)
    y = alt.Y("test_accuracy:Q", axis=charts.percent_axis("test accuracy"), scale=scale)
    base = alt.Chart(shown).encode(
        x=alt.X(
            "removed:Q",
            axis=charts.percent_axis("weights removed"),
            scale=alt.Scale(domain=[-0.02, 1], nice=False),
        ),
        stroke=looks["stroke"],
    )
    level = (
        alt.Chart(dense[["test_accuracy", "accuracy_text", "name"]])
        .mark_rule(opacity=0.7)
        .encode(y=y, tooltip=charts.hover("name", ("accuracy_text", "test accuracy")))
    )
    band = (
        alt.Chart(dense[["low", "high"]])
        .mark_rect(opacity=0.08, color=charts.INK, clip=True)
        .encode(y=alt.Y("low:Q", scale=scale, title="test accuracy"), y2="high:Q")
    )
    bars = charts.error_bars(base, scale, picked, (0.5, 0.04), clip=True)
    paths = [
        base.transform_filter(f"{'' if untrained else '!'}datum.untrained")
        .mark_line(strokeWidth=2, clip=True, strokeDash=[5, 4] if untrained else [1, 0])
        .encode(y=y, opacity=alt.condition(picked, alt.value(1), alt.value(0.1)))
        for untrained in (True, False)
    ]
    dots = (
        base.mark_point(size=50, clip=True)
        .encode(
            y=y,
            shape=looks["shape"],
            fill=looks["fill"],
            opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
            tooltip=charts.hover(
                "name",
                ("sparsity_text", "weights removed"),
                ("accuracy_text", "test accuracy"),
                ("epochs_text", "extra epochs"),
                ("nonzero_text", "nonzero parameters"),
                ("work_text", "MACs"),
            ),
        )
        .add_params(picked)
    )
    return Panel("", alt.layer(band, level, bars, *paths, dots).properties(height=380))


def by_sparsity(summary: pd.DataFrame) -> Panel:
    """Test accuracy of every method against the sparsity asked for, with error bars.

    summary: `tables.with_bounds` of all rows.
    """
    return _by_sparsity(points(summary), [0, 1 + ABOVE])


def close_up(summary: pd.DataFrame) -> Panel:
    """The same for the methods that train after pruning, from CLOSE_UP below the baseline up."""
    lines = points(summary)
    trained = lines[[not charts.LOOKS[method].untrained for method in lines.method]]
    return _by_sparsity(trained, close_up_range(trained, dense_accuracy(summary)))


def recoveries(summary: pd.DataFrame) -> pd.DataFrame:
    """method (before), removed, before and after (test accuracies), gain; what fine-tuning starts
    from and what it leads to, wherever both were measured.
    """
    lines = points(summary)
    found = []
    for start, end in RECOVERIES.items():
        one, other = (
            lines[lines.method == method][["removed", "test_accuracy", "extra_epochs"]]
            for method in (start, end)
        )
        both = one.merge(other, on="removed", suffixes=("_before", "_after"))
        found.append(
            pd.DataFrame(
                {
                    "method": start,
                    "removed": both.removed,
                    "before": both.test_accuracy_before,
                    "after": both.test_accuracy_after,
                    "epochs": both.extra_epochs_after,
                }
            )
        )
    table = pd.concat(found, ignore_index=True).sort_values(["method", "removed"], kind="stable")
    return table.assign(gain=table.after - table.before)


def recovery(summary: pd.DataFrame) -> list[Panel]:
    """Test accuracy before (hollow) and after (filled) fine-tuning, by sparsity: a panel for each
    way to prune.
    """
    table, dense = recoveries(summary), dense_accuracy(summary)
    panels = []
    for method in RECOVERIES:
        lines = table[table.method == method]
        if lines.empty:
            continue
        look, name = charts.LOOKS[method], tables.METHODS[method]
        shown = lines.assign(
            name=name,
            at=lines.removed.map(tables.percent),
            before_text=(100 * lines.before).map("{:.1f} %".format),
            after_text=(100 * lines.after).map("{:.1f} %".format),
            gain_text=(100 * lines.gain).map("{:+.1f} points".format),
            epochs_text=lines.epochs.map(tables.count),
        )
        base = alt.Chart(shown).encode(
            x=alt.X(
                "at:O", sort=list(shown["at"]), title="weights removed", axis=alt.Axis(labelAngle=0)
            ),
            tooltip=charts.hover(
                "name",
                ("at", "weights removed"),
                ("before_text", "as pruned"),
                ("after_text", "fine-tuned"),
                ("gain_text", "recovered"),
                ("epochs_text", "epochs"),
            ),
        )
        scale = alt.Scale(domain=[0, 1 + ABOVE], nice=False)
        before = alt.Y("before:Q", axis=charts.percent_axis("test accuracy"), scale=scale)
        level = (
            alt.Chart(pd.DataFrame({"dense": [dense]}))
            .mark_rule(opacity=0.7)
            .encode(y=alt.Y("dense:Q", scale=scale))
        )
        rise = base.mark_rule(color=look.colour, strokeWidth=2, opacity=0.6).encode(
            y=before, y2="after:Q"
        )
        pruned = base.mark_point(
            color=look.colour, shape=look.shape, size=60, strokeWidth=2, opacity=1
        ).encode(y=before)
        tuned = base.mark_point(
            color=look.colour, shape=look.shape, filled=True, size=75, opacity=1
        ).encode(y=alt.Y("after:Q", scale=scale))
        chart = alt.layer(level, rise, pruned, tuned).properties(height=200)
        panels.append(Panel(name, chart, 300))
    return panels


def sensitivity(summary: pd.DataFrame) -> Panel:
    """Each layer pruned alone: test accuracy by layer and sparsity, as a map with numbers."""
    alone = summary[summary.method == "layer_alone"].copy()
    alone["label"] = (100 * alone.test_accuracy).round(0).astype(int).astype(str)
    alone["accuracy_text"] = (100 * alone.test_accuracy).map("{:.1f} %".format)
    alone["removed"] = alone.target_sparsity.map(tables.percent)
    order = list(dict.fromkeys(alone.sort_values("target_sparsity").removed))
    shown = alone[["layer", "removed", "test_accuracy", "label", "accuracy_text"]]
    base = alt.Chart(shown).encode(
        x=alt.X(
            "removed:O",
            sort=order,
            title="weights removed from this layer alone",
            axis=alt.Axis(labelAngle=0, grid=False),
        ),
        # In the order of the rows: a list of names would become part of a program, as one.
        y=alt.Y("layer:N", sort=None, axis=charts.layer_axis()),
        tooltip=charts.hover(
            "layer", ("removed", "removed from it"), ("accuracy_text", "test accuracy")
        ),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "test_accuracy:Q",
            scale=alt.Scale(scheme="viridis", domain=[0, 1]),
            legend=alt.Legend(
                title="test accuracy",
                format=".0%",
                values=[0, 0.5, 1],
                direction="horizontal",
                gradientLength=200,
            ),
        ),
    )
    layers = alone.layer.nunique()
    row = 28 if layers <= MANY_LAYERS else 16
    text = base.mark_text(fontSize=min(12, row - 5)).encode(
        text="label:N",
        color=alt.condition("datum.test_accuracy > 0.6", alt.value("black"), alt.value("white")),
    )
    chart = alt.layer(cells, text).properties(height=row * layers).add_params(charts.NARROW)
    return Panel("", chart, max(60 * len(order), 240))


def learning(curves: pd.DataFrame) -> Panel:
    """Training and validation accuracy by epoch, one line a seed. curves: the learning curves of
    all seeds with a column `seed`.
    """
    long = curves.melt(
        ["seed", "epoch"],
        ["train_accuracy", "validation_accuracy"],
        var_name="name",
        value_name="accuracy",
    )
    long["name"] = long.name.str.removesuffix("_accuracy")
    long["accuracy_text"] = (100 * long.accuracy).map("{:.1f} %".format)
    picked = charts.picked()
    chart = (
        alt.Chart(long, height=220)
        .mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=22))
        .encode(
            x=alt.X(
                "epoch:Q",
                axis=alt.Axis(format="d", values=charts.whole_ticks(curves.epoch.max())),
                scale=alt.Scale(zero=False),
            ),
            y=alt.Y(
                "accuracy:Q", axis=charts.percent_axis("accuracy"), scale=alt.Scale(domain=[0, 1])
            ),
            color=alt.Color("name:N", title=None, scale=alt.Scale(range=["#0072B2", "#D55E00"])),
            detail="seed:N",
            opacity=alt.condition(picked, alt.value(0.9), alt.value(0.1)),
            tooltip=charts.hover(
                "name", ("epoch", "epoch"), ("seed", "seed"), ("accuracy_text", "accuracy")
            ),
        )
        .add_params(picked)
    )
    return Panel("", chart)
