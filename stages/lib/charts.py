"""The report's pictures: Vega-Lite charts, drawn to SVG without a browser."""

from pathlib import Path

import altair as alt
import pandas as pd

from stages.lib import tables

WIDTH, HEIGHT = 560, 320
METHOD_CHART = [
    "uniform", "global", "finetune", "iterative", "structured_layer", "structured_global",
    "structured_layer_finetune", "structured_global_finetune",
]  # fmt: skip
# Colour says what is removed and how (Okabe and Ito's palette, told apart by colour-blind readers);
# a dashed line says that nothing was trained after pruning.
COLOURS = [
    "#999999",
    "#0072B2",
    "#0072B2",
    "#009E73",
    "#E69F00",
    "#D55E00",
    "#E69F00",
    "#D55E00",
]
CLOSE_UP = 0.1
UNTRAINED = {"uniform", "global", "structured_layer", "structured_global"}


def save(chart: alt.TopLevelMixin, path: Path) -> None:
    """Draws a chart as SVG on white, so that it reads on a dark page too."""
    themed = (
        chart.properties(background="white", padding=10)
        .configure_view(strokeOpacity=0.2)
        .configure_axis(labelFontSize=12, titleFontSize=12, grid=True, gridOpacity=0.4)
        .configure_legend(labelFontSize=12, titleFontSize=12, labelLimit=320)
        .configure_title(fontSize=15, anchor="start", subtitleFontSize=12)
    )
    themed.save(path, format="svg")


def _percent_axis(title: str) -> alt.Axis:
    return alt.Axis(title=title, format="%")


def _whole_network_lines(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of METHOD_CHART with readable names and the ends of their error bars."""
    lines = summary[(summary.layer == "all") & summary.method.isin(METHOD_CHART)].copy()
    lines["name"] = lines.method.map(tables.METHODS)
    lines["trained"] = ~lines.method.isin(UNTRAINED)
    deviation = lines.test_accuracy_std.fillna(0)
    lines["low"] = (lines.test_accuracy - deviation).clip(lower=0)
    lines["high"] = (lines.test_accuracy + deviation).clip(upper=1)
    return lines


def _accuracy_lines(lines: pd.DataFrame, dense: float, domain: list[float]) -> alt.LayerChart:
    present = [method for method in METHOD_CHART if method in set(lines.method)]
    names = [tables.METHODS[method] for method in present]
    base = alt.Chart(lines, width=WIDTH, height=HEIGHT).encode(
        x=alt.X(
            "target_sparsity:Q",
            axis=_percent_axis("weights removed"),
            scale=alt.Scale(domain=[0, 1]),
        ),
        color=alt.Color(
            "name:N",
            title=None,
            scale=alt.Scale(
                domain=names,
                range=[COLOURS[METHOD_CHART.index(method)] for method in present],
            ),
        ),
    )
    scale = alt.Scale(domain=domain)
    accuracy = alt.Y("test_accuracy:Q", axis=_percent_axis("test accuracy"), scale=scale)
    mean = base.mark_line(
        point=alt.OverlayMarkDef(size=36, clip=True), strokeWidth=2, clip=True
    ).encode(
        y=accuracy,
        strokeDash=alt.StrokeDash(
            "name:N",
            title=None,
            scale=alt.Scale(
                domain=names,
                range=[[5, 4] if method in UNTRAINED else [1, 0] for method in present],
            ),
        ),
    )
    bars = base.mark_rule(opacity=0.55, clip=True).encode(
        y=alt.Y("low:Q", scale=scale, title="test accuracy"), y2="high:Q"
    )
    rule = (
        alt.Chart(pd.DataFrame({"test_accuracy": [dense]}))
        .mark_rule(color="black", opacity=0.6)
        .encode(y=accuracy)
    )
    return rule + bars + mean


def _dense_accuracy(summary: pd.DataFrame) -> float:
    return summary[summary.method == "baseline"].test_accuracy.iloc[0]


def accuracy_by_sparsity(summary: pd.DataFrame) -> alt.LayerChart:
    """Test accuracy of every method against target sparsity, mean ± standard deviation over seeds.

    summary: `tables.summary` of all rows.
    """
    lines = _whole_network_lines(summary)
    return _accuracy_lines(lines, _dense_accuracy(summary), [0, 1]).properties(
        title=alt.TitleParams(
            "Accuracy against sparsity",
            subtitle="solid: trained after pruning, dashed: as pruned; black: the dense baseline;"
            " bars: standard deviation over seeds",
        )
    )


def accuracy_close_up(summary: pd.DataFrame) -> alt.LayerChart:
    """The methods that train after pruning, in the ten points below the dense baseline."""
    lines = _whole_network_lines(summary)
    dense = _dense_accuracy(summary)
    top = min(1, max(dense, lines.high.max()) + 0.005)
    return _accuracy_lines(lines[lines.trained], dense, [max(0, dense - CLOSE_UP), top]).properties(
        title=alt.TitleParams(
            "Close up: the ten points below the baseline",
            subtitle="methods that train after pruning; black: the dense baseline",
        )
    )


# A network of more layers than this gets a map of narrower rows.
MANY_LAYERS = 24


def sensitivity(summary: pd.DataFrame) -> alt.LayerChart:
    """Each layer pruned alone: test accuracy by layer and sparsity, as a map with numbers."""
    alone = summary[summary.method == "layer_alone"].copy()
    alone["label"] = (100 * alone.test_accuracy).round(0).astype(int).astype(str)
    alone["removed"] = alone.target_sparsity.map(tables.percent)
    order = list(dict.fromkeys(alone.sort_values("target_sparsity").removed))
    base = alt.Chart(alone).encode(
        x=alt.X(
            "removed:N",
            sort=order,
            title="weights removed from this layer alone",
            axis=alt.Axis(labelAngle=0, grid=False),
        ),
        y=alt.Y(
            "layer:N",
            sort=list(dict.fromkeys(alone.layer)),
            title=None,
            axis=alt.Axis(grid=False, labelLimit=320),
        ),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "test_accuracy:Q",
            scale=alt.Scale(scheme="viridis", domain=[0, 1]),
            legend=alt.Legend(title="test accuracy", format="%"),
        )
    )
    layers, points = alone.layer.nunique(), len(order)
    row = 28 if layers <= MANY_LAYERS else 15
    text = base.mark_text(fontSize=min(12, row - 4)).encode(
        text="label:N",
        color=alt.condition("datum.test_accuracy > 0.6", alt.value("black"), alt.value("white")),
    )
    return (cells + text).properties(
        width=max(60 * points, 240),
        height=row * layers,
        title=alt.TitleParams(
            "Sensitivity of each layer",
            subtitle="test accuracy in percent, mean over seeds",
        ),
    )


def _whole_ticks(most: int) -> list[int]:
    """Round whole numbers from 1 or a step up to `most`, a dozen at most."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if most <= 12 * step)
    return [1, *range(step, most + 1, step)] if step > 1 else list(range(1, most + 1))


def learning_curves(curves: pd.DataFrame) -> alt.FacetChart:
    """Training and validation accuracy by epoch, one line a seed. curves: the learning curves of
    all seeds with a column `seed`.
    """
    long = curves.melt(
        ["seed", "epoch"],
        ["train_accuracy", "validation_accuracy"],
        var_name="part",
        value_name="accuracy",
    )
    long["part"] = long.part.str.removesuffix("_accuracy")
    return (
        alt.Chart(long, width=WIDTH, height=220)
        .mark_line(strokeWidth=1.5, opacity=0.9, point=alt.OverlayMarkDef(size=16))
        .encode(
            x=alt.X(
                "epoch:Q",
                axis=alt.Axis(format="d", values=_whole_ticks(curves.epoch.max())),
                scale=alt.Scale(zero=False),
            ),
            y=alt.Y(
                "accuracy:Q",
                axis=_percent_axis("accuracy"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            color=alt.Color("part:N", title=None, scale=alt.Scale(range=["#0072B2", "#D55E00"])),
            detail="seed:N",
        )
        .properties(
            title=alt.TitleParams("Training the baseline", subtitle="one line per seed and part")
        )
    )


def quantization_error(layers: pd.DataFrame) -> alt.LayerChart:
    """Error of every layer by bit width against S²/12, both axes as measured (per tensor and per
    channel).
    """
    data = layers[(layers.mse > 0) & (layers.theory > 0)].copy()
    data["setting"] = data.scheme + ", per " + data.granularity
    mean = data.groupby(["setting", "bits"], as_index=False)[["mse", "theory"]].mean()
    bits = alt.X("bits:Q", axis=alt.Axis(title="bits per weight", tickMinStep=1, format="d"))
    log = alt.Scale(type="log")
    theory = (
        alt.Chart(mean, width=WIDTH, height=HEIGHT)
        .mark_line(strokeDash=[5, 4], opacity=0.8)
        .encode(x=bits, y=alt.Y("theory:Q", scale=log), color="setting:N")
    )
    measured = (
        alt.Chart(mean)
        .mark_point(filled=True, size=50)
        .encode(
            x=bits,
            y=alt.Y(
                "mse:Q",
                scale=log,
                axis=alt.Axis(title="mean squared error", format=".0e"),
            ),
            color=alt.Color(
                "setting:N",
                title=None,
                scale=alt.Scale(range=["#0072B2", "#56B4E9", "#D55E00", "#E69F00"]),
            ),
        )
    )
    return (theory + measured).properties(
        title=alt.TitleParams(
            "Error of linear quantization",
            subtitle="points: measured, mean over layers and seeds; dashed: S²/12",
        )
    )


def accuracy_by_bits(summary: pd.DataFrame) -> alt.Chart:
    """Test accuracy of the whole network by the width of its quantized weights."""
    lines = summary[summary.weight_bits < 32].copy()
    lines["setting"] = lines.method.str.replace("_", ", per ")
    return (
        alt.Chart(lines, width=WIDTH, height=HEIGHT)
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "weight_bits:Q",
                axis=alt.Axis(title="bits per weight", tickMinStep=1, format="d"),
            ),
            y=alt.Y(
                "test_accuracy:Q",
                axis=_percent_axis("test accuracy"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            color=alt.Color(
                "setting:N",
                title=None,
                scale=alt.Scale(range=["#0072B2", "#56B4E9", "#D55E00", "#E69F00"]),
            ),
        )
        .properties(
            title=alt.TitleParams(
                "Accuracy with quantized weights",
                subtitle="mean over seeds, no retraining",
            )
        )
    )


def format_latency(formats: pd.DataFrame) -> alt.FacetChart:
    """Latency by number format, for each network and device, on a logarithmic axis."""
    known = formats[formats.latency_ms.notna()].copy()
    if known.empty:
        nothing = pd.DataFrame({"text": ["No latency was measured: the table says why."]})
        return alt.Chart(nothing, width=WIDTH, height=60).mark_text(fontSize=14).encode(text="text")
    known["panel"] = known.network + " on " + known.device
    known["batch"] = "batch " + known.batch_size.astype(str)
    known["label"] = known.latency_ms.map(tables.milliseconds) + " ms"
    order = list(dict.fromkeys(formats.dtype))
    batches = list(dict.fromkeys(known.sort_values("batch_size").batch))
    base = alt.Chart().encode(
        x=alt.X(
            "latency_ms:Q",
            scale=alt.Scale(type="log", domainMin=known.latency_ms.min() / 2, nice=True),
            axis=alt.Axis(title="milliseconds per call (logarithmic)", tickCount=6),
        ),
        y=alt.Y("dtype:N", sort=order, title=None),
        yOffset=alt.YOffset("batch:N", sort=batches),
        color=alt.Color(
            "batch:N",
            title=None,
            sort=batches,
            scale=alt.Scale(range=["#0072B2", "#E69F00"]),
        ),
    )
    points = base.mark_point(filled=True, size=80)
    text = base.mark_text(align="left", dx=8, fontSize=11).encode(text="label:N")
    return (
        alt.layer(points, text, data=known)
        .properties(width=WIDTH, height=120)
        .facet(row=alt.Row("panel:N", title=None, header=alt.Header(labelFontSize=13)))
        .properties(
            title=alt.TitleParams(
                "Latency by number format",
                subtitle="median of repeated calls; what could not be measured is in the table",
            )
        )
    )


def structured_latency(latencies: pd.DataFrame, summary: pd.DataFrame) -> alt.Chart:
    """Latency of the smaller networks against their multiply-adds, both relative to the dense
    network.
    """
    macs = summary[summary.layer == "all"].set_index(["method", "target_sparsity"]).multiply_adds
    dense = macs.loc["baseline"].iloc[0]
    data = latencies.groupby(["method", "target_sparsity", "batch_size"], as_index=False)[
        "relative_to_baseline"
    ].median()
    data["relative_multiply_adds"] = [
        macs[key] / dense for key in zip(data.method, data.target_sparsity, strict=True)
    ]
    data["name"] = data.method.map(tables.METHODS)
    data["batch"] = "batch " + data.batch_size.astype(str)
    batches = list(dict.fromkeys(data.sort_values("batch_size").batch))
    methods = list(dict.fromkeys(data.method))
    colours = {"baseline": "black", **dict(zip(METHOD_CHART, COLOURS, strict=True))}
    return (
        alt.Chart(data, width=WIDTH / 2 - 20, height=260)
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X(
                "relative_multiply_adds:Q",
                axis=_percent_axis("multiply-adds, of the dense network's"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y(
                "relative_to_baseline:Q",
                axis=_percent_axis("latency, of the dense network's"),
                scale=alt.Scale(domainMin=0),
            ),
            color=alt.Color(
                "name:N",
                title=None,
                scale=alt.Scale(
                    domain=[tables.METHODS[method] for method in methods],
                    range=[colours[method] for method in methods],
                ),
            ),
            column=alt.Column("batch:N", sort=batches, title=None),
        )
        .properties(
            title=alt.TitleParams(
                "Fewer multiply-adds, less time?",
                subtitle="timed in turns; median over seeds",
            )
        )
    )
