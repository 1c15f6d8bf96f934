"""What all charts share: how each method looks, axes, the hover's text, and drawing to a file.

A chart is a Vega-Lite specification. The page draws it in the reader's browser, as wide as there
is room and in the page's colours; the pictures of the Markdown report are drawn here.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from stages.lib.analysis import tables

WIDTH, HEIGHT = 560, 320
# The colour of text around a chart, whatever that is: black in a picture, light on a dark page.
INK = "currentColor"


class Panel(NamedTuple):
    """One chart of a figure. title: empty where the figure has no other; width: in a picture."""

    title: str
    chart: alt.TopLevelMixin
    width: int = WIDTH


class Look(NamedTuple):
    """Colour, shape of points, and whether nothing was trained after pruning: then lines are
    dashed and points hollow.
    """

    colour: str
    shape: str
    untrained: bool = False


# Colour says what is removed and by what rule (Okabe and Ito's palette, told apart by colour-blind
# readers), a square "each layer alike".
LOOKS = {
    "baseline": Look(INK, "circle"),
    "random_uniform": Look("#999999", "square", True),
    "random_global": Look("#999999", "circle", True),
    "uniform": Look("#56B4E9", "square", True),
    "best_per_layer": Look("#56B4E9", "diamond", True),
    "global": Look("#0072B2", "circle", True),
    "baseline_finetune": Look(INK, "cross"),
    "random_global_finetune": Look("#999999", "circle"),
    "uniform_finetune": Look("#56B4E9", "square"),
    "finetune": Look("#0072B2", "circle"),
    "iterative": Look("#009E73", "diamond"),
    "baseline_long": Look(INK, "triangle-up"),
    "finetune_long": Look("#0072B2", "triangle-up"),
    "structured_layer": Look("#E69F00", "square", True),
    "structured_global": Look("#D55E00", "circle", True),
    "structured_layer_finetune": Look("#E69F00", "square"),
    "structured_global_finetune": Look("#D55E00", "circle"),
}
# The four ways to quantize, and the half formats.
QUANTIZED = {
    "affine_tensor": Look("#0072B2", "circle"),
    "affine_channel": Look("#56B4E9", "square"),
    "symmetric_tensor": Look("#D55E00", "diamond"),
    "symmetric_channel": Look("#E69F00", "triangle-up"),
}
INTEGER = Look("#CC79A7", "square")
CAST = Look("#CC79A7", "triangle-up")
# Files to deploy: the three ways to a small packed one, and what ONNX Runtime executes.
DEPLOYED = {
    "packed": Look("#B22222", "diamond"),
    "packed_pruned": Look("#0072B2", "triangle-down"),
    "packed_quantized": Look("#CC79A7", "square"),
}
ONNX = {32: Look("#8A6FB3", "cross"), 8: Look("#5B3A8E", "triangle-right")}

CONFIG: dict[str, Any] = {
    "axis": {
        "domainColor": INK, "domainOpacity": 0.35, "tickColor": INK, "tickOpacity": 0.35,
        "gridColor": INK, "gridOpacity": 0.12, "labelColor": INK, "titleColor": INK,
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
    },
    "axisX": {"labelOverlap": True},
    "axisY": {"titleAnchor": "end"},
    "legend": {
        "orient": "bottom", "direction": "horizontal", "labelColor": INK, "titleColor": INK,
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 320,
        "columnPadding": 24, "rowPadding": 4, "columns": 2, "symbolSize": 70,
        "symbolStrokeWidth": 2, "symbolOpacity": 1,
    },
    "title": {
        "color": INK, "subtitleColor": INK, "fontSize": 15, "subtitleFontSize": 12,
        "anchor": "start", "subtitlePadding": 6, "offset": 12,
    },
    "view": {"stroke": None},
    "text": {"color": INK},
    "rule": {"color": INK},
}  # fmt: skip
# A network of a thousand layers is more rows than Altair lets pass unasked.
alt.data_transformers.disable_max_rows()
# Set by the page where it is narrow, to shorten what would leave no room for the chart.
NARROW = alt.param("narrow", value=False)


def percent_axis(title: str) -> alt.Axis:
    """Shares, as the text writes them: 80 %."""
    return alt.Axis(title=title, labelExpr="format(100 * datum.value, '.4~g') + ' %'")


def bits(widths: pd.Series) -> alt.X:
    """The horizontal axis of a chart by bit width."""
    return alt.X(
        "bits:Q",
        axis=alt.Axis(title="bits per weight", tickMinStep=1, format="d"),
        scale=alt.Scale(domain=[int(widths.min()) - 0.5, int(widths.max()) + 0.5], nice=False),
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two above 0, for a logarithmic axis: a few, but at least two."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in (
        (1,),
        (1, 3),
        (1, 2, 5),
        (1, 1.5, 2, 3, 5, 7),
        (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    ):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            break
    return ticks


def log_axis(low: float, high: float, title: str, unit: str = "") -> dict[str, Any]:
    """Axis and scale, logarithmic, of numbers from `low` to `high`, both above 0."""
    return {
        "axis": alt.Axis(
            title=f"{title} (logarithmic)",
            values=log_ticks(low, high),
            labelExpr=f"format(datum.value, '.3~r') + '{unit}'",
        ),
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
    }


def error_bars(
    base: alt.Chart,
    scale: alt.Scale,
    picked: alt.Parameter,
    opacity: tuple[float, float],
    **mark: Any,
) -> alt.Chart:
    """Rules from column `low` to `high` of a test accuracy; opacity: of what the legend picks, and
    of the rest.
    """
    shown, faded = opacity
    return base.mark_rule(**mark).encode(
        y=alt.Y("low:Q", scale=scale, title="test accuracy"),
        y2="high:Q",
        opacity=alt.condition(picked, alt.value(shown), alt.value(faded)),
    )


def whole_ticks(most: int) -> list[int]:
    """Round whole numbers from 1 or a step up to `most`, a dozen at most."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if most <= 12 * step)
    return [1, *range(step, most + 1, step)] if step > 1 else list(range(1, most + 1))


def layer_axis() -> alt.Axis:
    """An axis of layers' names, of which the end tells more than the beginning."""
    return alt.Axis(
        grid=False,
        title=None,
        labelLimit=0,
        labelExpr="truncate(datum.label, narrow ? 14 : 40, 'left')",
    )


def hover(heading: str, *lines: tuple[str, str]) -> list[alt.Tooltip]:
    """What is said of a point under the pointer: a column as heading, and (column, title) below."""
    return [
        alt.Tooltip(f"{heading}:N", title="title"),
        *(alt.Tooltip(f"{column}:N", title=title) for column, title in lines),
    ]


def by_name(looks: dict[str, Look]) -> dict[str, Any]:
    """Encodings of a column `name` by the look of each name, in that order, with one legend."""
    names = list(looks)

    def scale(value: Callable[[Look], Any]) -> alt.Scale:
        return alt.Scale(domain=names, range=[value(look) for look in looks.values()])

    def inside(look: Look) -> str:
        return "transparent" if look.untrained else look.colour

    return {
        "stroke": alt.Stroke("name:N", title=None, scale=scale(lambda look: look.colour)),
        "fill": alt.Fill("name:N", title=None, scale=scale(inside)),
        "shape": alt.Shape("name:N", title=None, scale=scale(lambda look: look.shape)),
    }


def picked(number: int = 0) -> alt.Parameter:
    """A click on the legend makes the other names pale. number: of the panel in its figure."""
    return alt.selection_point(f"picked{number}", fields=["name"], bind="legend")


def nothing(text: str) -> alt.Chart:
    """A line of text in place of a chart."""
    return (
        alt.Chart(pd.DataFrame({"text": [text]}), height=60)
        .mark_text(fontSize=14)
        .encode(text="text:N")
    )


def looks_of(methods: Iterable[str]) -> dict[str, Look]:
    """The looks of methods by the names that people read, in the course's order."""
    present = set(methods)
    return {tables.METHODS[method]: LOOKS[method] for method in LOOKS if method in present}


def picture(title: str, reading: str, panels: Sequence[Panel]) -> alt.TopLevelMixin:
    """A figure's panels as one chart, for a file: on white, so that it reads on a dark page too.

    reading: how to read it; stands below the title.
    """
    charts = [
        panel.chart.properties(width=panel.width, **({"title": panel.title} if panel.title else {}))
        for panel in panels
    ]
    whole = charts[0] if len(charts) == 1 else alt.concat(*charts, columns=2)
    room = panels[0].width * min(2, len(panels)) + 60
    heading = alt.TitleParams(title, subtitle=textwrap.wrap(reading, room // 6))
    return whole.properties(title=heading, background="white", padding=12).configure(**CONFIG)


def save(chart: alt.TopLevelMixin, path: Path) -> None:
    """Draws a chart to an SVG file, without a browser."""
    chart.save(path, format="svg")
