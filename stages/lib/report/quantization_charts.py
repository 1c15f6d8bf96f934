"""Charts of quantized weights: accuracy and error by bit width."""

import altair as alt
import pandas as pd

from stages.lib.analysis import tables
from stages.lib.report import charts
from stages.lib.report.charts import Look, Panel


def setting_name(method: str) -> str:
    """A way to quantize in words: affine_tensor → "affine, per tensor"."""
    return method.replace("_", ", per ")


def _looks(methods: pd.Series) -> dict[str, Look]:
    present = set(methods)
    return {setting_name(name): look for name, look in charts.QUANTIZED.items() if name in present}


def accuracy_by_bits(summary: pd.DataFrame) -> Panel:
    """Test accuracy of the whole network by the width of its quantized weights, with error bars.

    summary: `tables.with_bounds` of all rows.
    """
    lines = summary[summary.weight_bits < 32]
    shown = pd.DataFrame(
        {
            "name": lines.method.map(setting_name),
            "bits": lines.weight_bits,
            "test_accuracy": lines.test_accuracy,
            "low": lines.low,
            "high": lines.high,
            "accuracy_text": [
                tables.estimate(line.test_accuracy, line.low, line.high)
                for line in lines.itertuples()
            ],
        }
    )
    looks, picked = charts.by_name(_looks(lines.method)), charts.picked()
    base = alt.Chart(shown).encode(
        x=charts.bits(shown.bits),
        stroke=looks["stroke"],
    )
    scale = alt.Scale(domain=[0, 1.02], nice=False)
    y = alt.Y("test_accuracy:Q", axis=charts.percent_axis("test accuracy"), scale=scale)
    bars = charts.error_bars(base, scale, picked, (0.5, 0.05))
    path = base.mark_line(strokeWidth=2).encode(
        y=y, opacity=alt.condition(picked, alt.value(1), alt.value(0.1))
    )
    dots = (
        base.mark_point(size=50)
        .encode(
            y=y,
            shape=looks["shape"],
            fill=looks["fill"],
            opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
            tooltip=charts.hover(
                "name", ("bits", "bits per weight"), ("accuracy_text", "test accuracy")
            ),
        )
        .add_params(picked)
    )
    return Panel("", alt.layer(bars, path, dots).properties(height=280))


def mean_errors(layers: pd.DataFrame) -> pd.DataFrame:
    """method (SCHEME_GRANULARITY), bits, mse and theory: means over layers and seeds; what is 0
    (nothing to quantize) is left out.
    """
    data = layers[(layers.mse > 0) & (layers.theory > 0)]
    data = data.assign(method=data.scheme + "_" + data.granularity)
    return data.groupby(["method", "bits"], as_index=False, sort=False)[["mse", "theory"]].mean()


def error_by_bits(layers: pd.DataFrame) -> Panel:
    """Mean squared error of the weights by bit width against S²/12, logarithmic."""
    mean = mean_errors(layers)
    shown = mean.assign(
        name=mean.method.map(setting_name),
        mse_text=mean.mse.map("{:.3g}".format),
        theory_text=mean.theory.map("{:.3g}".format),
        ratio_text=(mean.mse / mean.theory).map("{:.3f}".format),
    )
    looks, picked = charts.by_name(_looks(mean.method)), charts.picked()
    scale = alt.Scale(type="log")
    base = alt.Chart(shown).encode(
        x=charts.bits(shown.bits),
        stroke=looks["stroke"],
        opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
    )
    theory = base.mark_line(strokeDash=[5, 4], strokeWidth=1.5).encode(
        y=alt.Y("theory:Q", scale=scale)
    )
    measured = (
        base.mark_point(size=50)
        .encode(
            y=alt.Y(
                "mse:Q",
                scale=scale,
                axis=alt.Axis(title="mean squared error of a weight", format=".0e", tickCount=6),
            ),
            shape=looks["shape"],
            fill=looks["fill"],
            tooltip=charts.hover(
                "name",
                ("bits", "bits per weight"),
                ("mse_text", "measured"),
                ("theory_text", "S²/12"),
                ("ratio_text", "ratio"),
            ),
        )
        .add_params(picked)
    )
    return Panel("", alt.layer(theory, measured).properties(height=280))
