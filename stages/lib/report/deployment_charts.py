"""Charts of what is deployed: packed files, and the same networks in several engines."""

import altair as alt
import pandas as pd

from stages.lib.analysis import tables
from stages.lib.report import charts, deployment_tables
from stages.lib.report.charts import Look, Panel

ENGINES = {
    "torch": Look(charts.INK, "circle"),
    "torch.compile": Look("#999999", "diamond"),
    "onnxruntime": Look("#5B3A8E", "triangle-right"),
}


def by_size(everything: pd.DataFrame) -> Panel:
    """Test accuracy of packed networks by how many times smaller than the dense float32 file they
    are, with error bars. everything: `Run.everything`.
    """
    dense = everything[everything.method == "baseline"].iloc[0]
    lines = deployment_tables.packed_lines(everything)
    shown = pd.DataFrame(
        {
            "name": lines.method.map(tables.PACKED),
            "smaller": lines.smaller,
            "test_accuracy": lines.test_accuracy,
            "low": lines.low,
            "high": lines.high,
            "size_text": lines.bytes_on_disk.map(tables.size),
            "smaller_text": lines.smaller.map("{:.1f} ×".format),
            "zeros_text": lines.sparsity.round(3).map(tables.percent),
            "accuracy_text": [
                tables.estimate(line.test_accuracy, line.low, line.high)
                for line in lines.itertuples()
            ],
        }
    )
    looks = {
        tables.PACKED[method]: look
        for method, look in charts.DEPLOYED.items()
        if method in set(lines.method)
    }
    look, picked = charts.by_name(looks), charts.picked()
    low, high = shown.smaller.min() / 1.15, shown.smaller.max() * 1.15
    title = "times smaller than the dense float32 file"
    x = alt.X("smaller:Q", **charts.log_axis(low, high, title, " ×"))
    least = min(shown.low.min(), dense.test_accuracy)
    most = max(shown.high.max(), dense.test_accuracy)
    room = 0.08 * max(most - least, 0.01)
    scale = alt.Scale(domain=[max(0, least - room), min(1, most + room)], nice=False)
    y = alt.Y("test_accuracy:Q", axis=charts.percent_axis("test accuracy"), scale=scale)
    rule = (
        alt.Chart(pd.DataFrame({"test_accuracy": [dense.test_accuracy]}))
        .mark_rule(strokeWidth=1.2, opacity=0.6)
        .encode(y=y)
    )
    base = alt.Chart(shown).encode(x=x, stroke=look["stroke"])
    bars = charts.error_bars(base, scale, picked, (0.5, 0.05))
    path = base.mark_line(strokeWidth=2).encode(
        y=y, opacity=alt.condition(picked, alt.value(1), alt.value(0.1))
    )
    dots = (
        base.mark_point(size=70)
        .encode(
            y=y,
            shape=look["shape"],
            fill=look["fill"],
            opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
            tooltip=charts.hover(
                "name",
                ("smaller_text", "than float32"),
                ("size_text", "file"),
                ("zeros_text", "zeros"),
                ("accuracy_text", "test accuracy"),
            ),
        )
        .add_params(picked)
    )
    return Panel("", alt.layer(rule, bars, path, dots).properties(height=300))


def engines(timed: pd.DataFrame) -> list[Panel]:
    """How many times faster than the dense network in torch each one is: a panel per batch size.

    timed: records.ENGINE_LATENCY.
    """
    lines = deployment_tables.engine_lines(timed)
    lines = lines[lines.latency_ms.notna()]
    if lines.empty:
        return [Panel("", charts.nothing("No latency was measured: the table says why."))]
    lines = lines.assign(
        network=[
            deployment_tables.network(line.method, line.weight_bits, line.target_sparsity)
            for line in lines.itertuples()
        ],
        time_text=lines.latency_ms.map(tables.milliseconds) + " ms",
        faster_text=lines.faster.map(tables.factor),
    )
    looks = {name: look for name, look in ENGINES.items() if name in set(lines.engine)}
    order = list(dict.fromkeys(lines.network))
    panels = []
    for batch, here in lines.groupby("batch_size"):
        look, picked = charts.by_name(looks), charts.picked(len(panels))
        low, high = min(0.8, here.faster.min() / 1.2), here.faster.max() * 1.9
        base = alt.Chart(
            here.rename(columns={"engine": "name"})[
                ["network", "name", "faster", "time_text", "faster_text"]
            ]
        ).encode(
            x=alt.X(
                "faster:Q",
                **charts.log_axis(low, high, "times faster than eager float32", " ×"),
            ),
            y=alt.Y(
                "network:N", sort=order, title=None,
                axis=alt.Axis(
                    grid=True, labelLimit=0,
                    labelExpr="narrow ? split(datum.label, ', ') : datum.label",
                ),
            ),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
        )  # fmt: skip
        dots = (
            base.mark_point(size=70)
            .encode(
                stroke=look["stroke"],
                fill=look["fill"],
                shape=look["shape"],
                tooltip=charts.hover(
                    "network",
                    ("name", "engine"),
                    ("time_text", "latency"),
                    ("faster_text", "than eager float32"),
                ),
            )
            .add_params(picked)
        )
        text = base.mark_text(align="left", dx=9, fontSize=11).encode(
            text="faster_text:N", color=alt.value(charts.INK)
        )
        height = 40 * here.network.nunique() + 20
        chart = alt.layer(dots, text).properties(height=height).add_params(charts.NARROW)
        panels.append(Panel(f"batch {batch}", chart, 300))
    return panels
