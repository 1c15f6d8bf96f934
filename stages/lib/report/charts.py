"""The parts of all charts: axes, looks, and the marks of a plot.

A chart is a Vega-Lite specification. The page draws it in the reader's browser, in the available
width and the page's colours. The pictures of the Markdown report are drawn here.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from stages.lib.core import methods
from stages.lib.core.methods import INK
from stages.lib.report.columns import Column

WIDTH, HEIGHT = 560, 320
# A legend with more entries cannot be read.
MOST_NAMES = 8
# Text in a chart: its size, the room of a letter and of a line, the gap to its point, in pixels.
LABEL, LETTER, LINE, GAP = 11, 6.1, 13, 11
# How wide a line through a label counts as, in pixels: more than it is, as it strikes it through.
STROKE = 4
# Where a label may stand, best first: to the right (1) or left of its point, below (1) or above.
SIDES = ((1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1), (0, 1))
KIB = 1024
# How axes and legends write a share: as the text does, 80 %.
AS_PERCENT = "format(100 * datum.value, '.4~g') + ' %'"
# Shares that differ by less are no reason for a longer axis.
LEAST_RANGE = 0.02
# The columns that marks read, if a table has them.
SHOWN = ("name", "low", "high", "hollow", "front", "label", "dx", "dy", "theory")
CONFIG: dict[str, Any] = {
    "axis": {
        "domainColor": INK, "domainOpacity": 0.35, "tickColor": INK, "tickOpacity": 0.35,
        "gridColor": INK, "gridOpacity": 0.12, "labelColor": INK, "titleColor": INK,
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
    },
    "axisX": {"labelOverlap": "greedy", "labelSeparation": 8},
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
# A network of a thousand layers has more rows than Altair allows by default.
alt.data_transformers.disable_max_rows()
# Set by the page if it is narrow, to shorten labels that would leave no room for the chart.
NARROW = alt.param("narrow", value=False)


class Panel(NamedTuple):
    """One chart of a figure. title: empty if it is the only one; width: in a picture."""

    title: str
    chart: alt.TopLevelMixin
    width: int = WIDTH


class Look(NamedTuple):
    """The colour and shape of points. hollow: points are hollow, and lines are dashed."""

    colour: str
    shape: str = "circle"
    hollow: bool = False


def look(name: str) -> Look:
    """The look of a method: hollow if it prunes without training afterwards."""
    method = methods.METHODS[name]
    pruned = method.family in (methods.UNSTRUCTURED, methods.STRUCTURED)
    return Look(*method.look, pruned and not method.trained)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The looks of methods by their titles, in the order of the registry."""
    present = set(names)
    return {method.title: look(name) for name, method in methods.METHODS.items() if name in present}


class Axis(NamedTuple):
    """A column of the table and its layout. kind: Vega-Lite's letter for its type."""

    column: str
    options: Mapping[str, Any]
    kind: str = "Q"

    @property
    def x(self) -> alt.X:
        return alt.X(f"{self.column}:{self.kind}", **self.options)

    @property
    def y(self) -> alt.Y:
        return alt.Y(f"{self.column}:{self.kind}", **self.options)


def share_ticks(low: float, high: float) -> list[float]:
    """Round shares from `low` to `high`, at most nine, none above 1."""
    steps = (step / 10**power for power in (4, 3, 2, 1) for step in (1, 2, 5))
    step = next(step for step in steps if high - low <= 8 * step)
    ticks = range(math.ceil(low / step - 1e-9), math.floor(min(high, 1) / step + 1e-9) + 1)
    return [round(number * step, 6) for number in ticks]


def shares(column: str, title: str, domain: Sequence[float]) -> Axis:
    """An axis of shares. It may reach a little beyond 100 %, for the marks."""
    axis = alt.Axis(
        title=title,
        values=share_ticks(*domain),
        labelExpr=AS_PERCENT,
    )
    return Axis(column, {"axis": axis, "scale": alt.Scale(domain=list(domain), nice=False)})


def log_ticks(low: float, high: float) -> list[float]:
    """A few round numbers from `low` to `high`, both above 0, for a logarithmic axis; at least
    two.
    """
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


def logarithmic(
    column: str, values: pd.Series, title: str, unit: str = "", room: tuple[float, float] = (1, 1)
) -> Axis:
    """A logarithmic axis of positive numbers.

    unit: behind each tick.
    room: the factors by which the axis extends below the smallest and above the largest value.
    """
    low, high = float(values.min()) / room[0], float(values.max()) * room[1]
    axis = alt.Axis(
        title=f"{title} (logarithmic)",
        values=log_ticks(low, high),
        labelExpr=f"format(datum.value, datum.value < 0.001 ? '.0e' : '.3~r') + '{unit}'",
    )
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return Axis(column, {"axis": axis, "scale": scale})


def sizes(column: str, values: pd.Series, title: str) -> Axis:
    """An axis of bytes above 0 in binary units, with ticks at up to nine powers of two."""
    units = " : ".join(
        f"datum.value >= {unit} ? format(datum.value / {unit}, '~r') + ' {name}'"
        for unit, name in ((KIB**3, "GiB"), (KIB**2, "MiB"), (KIB, "KiB"))
    )
    least, most = float(values.min()), float(values.max())
    low, high = int(least).bit_length() - 1, int(most).bit_length()
    ticks = [2**power for power in range(low, high + 1, -(-(high - low) // 8))]
    axis = alt.Axis(
        title=f"{title} (logarithmic)", values=ticks, labelExpr=f"{units} : datum.value + ' B'"
    )
    scale = alt.Scale(type="log", base=2, domain=[least * 0.85, most * 1.15], nice=False)
    return Axis(column, {"axis": axis, "scale": scale})


def whole(column: str, values: pd.Series, title: str, room: float = 0) -> Axis:
    """An axis of integers with up to a dozen ticks."""
    low, high = int(values.min()), int(values.max())
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    step = next((step for step in steps if high - low <= 12 * step), high - low)
    ticks = sorted({low, *range(-(-low // step) * step, high + 1, step)})
    scale = alt.Scale(domain=[low - room, high + room], nice=False)
    return Axis(column, {"axis": alt.Axis(title=title, values=ticks, format="d"), "scale": scale})


# On a narrow page, a network's name is broken at its first comma, if what follows is long also at
# the second; a layer's name loses its beginning.
_FIRST, _SECOND = (f"split(datum.label, ', ')[{number}]" for number in (0, 1))
_REST, _THIRD = (f"join(slice(split(datum.label, ', '), {number}), ', ')" for number in (1, 2))
_LINES = f"length({_REST}) > 26 && {_THIRD} ? [{_FIRST}, {_SECOND}, {_THIRD}] : [{_FIRST}, {_REST}]"
BROKEN = f"narrow ? ({_LINES}) : datum.label"
CUT = "truncate(datum.label, narrow ? 14 : 40, 'left')"


def names(column: str, label: str, grid: bool = False, sort: Sequence[str] | None = None) -> Axis:
    """A vertical axis of names, by default in the order of the rows. label: BROKEN or CUT.

    `sort` must not contain names from the user's data, because Vega-Lite makes an expression of it.
    """
    axis = alt.Axis(
        grid=grid, ticks=False, domain=False, title=None, labelLimit=0, labelPadding=6,
        labelExpr=label,
    )  # fmt: skip
    return Axis(column, {"axis": axis, "sort": sort}, "N")


def around(values: Iterable[float], room: float = 0.05) -> list[float]:
    """The range from a little below the smallest share to a little above the largest, of two
    percentage points at least.
    """
    values = list(values)
    most = min(1.0, max(max(values), (min(values) + max(values) + LEAST_RANGE) / 2))
    least = min(min(values), most - LEAST_RANGE)
    room *= most - least
    return [max(0.0, least - room), most + room]


def times(column: str, values: pd.Series, title: str) -> Axis:
    """A logarithmic axis of factors: 2 ×."""
    return logarithmic(column, values, title, " ×", (1.15, 1.15))


def hover(columns: Sequence[Column]) -> list[alt.Tooltip]:
    """The tooltip of a mark, with the texts of `with_texts`. The first column is the heading."""
    titles = ["title", *(column.title for column in columns[1:])]
    return [alt.Tooltip(f"text{i}:N", title=title) for i, title in enumerate(titles)]


def with_texts(
    lines: pd.DataFrame, shown: Sequence[str], columns: Sequence[Column]
) -> pd.DataFrame:
    """Only the columns that a chart shows, and the texts of its tooltips."""
    texts = {f"text{i}": column.texts(lines) for i, column in enumerate(columns)}
    return lines[[name for name in dict.fromkeys(shown) if name in lines]].assign(**texts)


class Plot:
    """A plot of several layers (points, lines, bars) with one legend. A click on the legend selects
    a `name` and makes the others pale.

    lines: a row for each point.
    x, y: axes.
    looks: by name, in the order of the legend.
    tells: the columns of the tooltip.
    number: of the panel in its figure.
    detail: a column that separates lines of the same name.
    """

    def __init__(
        self,
        lines: pd.DataFrame,
        x: Axis,
        y: Axis,
        looks: Mapping[str, Look],
        tells: Sequence[Column],
        number: int = 0,
        detail: str = "name",
    ) -> None:
        self.x, self.y, self.looks, self.tells = x, y, looks, tells
        lines = lines.assign(hollow=[looks[name].hollow for name in lines["name"]])
        shown = [x.column, y.column, *SHOWN, detail]
        self.base = alt.Chart(with_texts(lines, shown, tells)).encode(x=x.x, detail=f"{detail}:N")
        self.picked = alt.selection_point(f"picked{number}", fields=["name"], bind="legend")
        self.layers: list[alt.Chart] = []
        self.labelled = False

    def _by_name(self, value: Callable[[Look], Any]) -> dict[str, Any]:
        scale = alt.Scale(
            domain=list(self.looks), range=[value(look) for look in self.looks.values()]
        )
        return {"shorthand": "name:N", "title": None, "scale": scale}

    @property
    def _stroke(self) -> alt.Stroke:
        return alt.Stroke(**self._by_name(lambda look: look.colour))

    def _pale(self, strong: float, weak: float) -> Any:
        return alt.condition(self.picked, alt.value(strong), alt.value(weak))

    def apart(self) -> "Plot":
        """Shifts the names of one row apart, below each other."""
        offset = alt.YOffset("name:N", sort=list(self.looks))
        self.base = self.base.encode(yOffset=offset)
        return self

    def level(self, value: float, band: tuple[float, float] | None = None) -> "Plot":
        """A horizontal line across the chart, with the band of its interval."""
        if band is not None:
            area = alt.Chart(pd.DataFrame([dict(zip(("low", "high"), band, strict=True))]))
            y = self.y._replace(column="low").y
            marks = area.mark_rect(opacity=0.08, color=INK, clip=True)
            self.layers.append(marks.encode(y=y, y2="high:Q"))
        rule = alt.Chart(pd.DataFrame({self.y.column: [value]}))
        self.layers.append(rule.mark_rule(opacity=0.7, clip=True).encode(y=self.y.y))
        return self

    def steps(self, front: pd.DataFrame, look: Look) -> "Plot":
        """A stepped line through the points of a Pareto front, which saves most at its end."""
        line = alt.Chart(front[[self.x.column, self.y.column]]).mark_line(
            interpolate="step-before", color=look.colour, strokeWidth=1.5, clip=True
        )
        self.layers.append(line.encode(x=self.x.x, y=self.y.y))
        return self

    def bars(self, only: Any = True) -> "Plot":
        """Error bars, from column `low` to `high`. only: of which rows, an expression."""
        y = self.y._replace(column="low").y
        marks = self.base.transform_filter(only) if only is not True else self.base
        self.layers.append(
            marks.mark_rule(clip=True, strokeWidth=0.8).encode(
                y=y, y2="high:Q", stroke=self._stroke, opacity=self._pale(1, 0.04)
            )
        )
        return self

    def lines(self, column: str | None = None) -> "Plot":
        """A line for each name, dashed if its look is hollow. column: of y; if it is not that of
        the points, all lines are dashed.
        """
        hollow = alt.datum.hollow if column is None else "true"
        y = self.y._replace(column=column or self.y.column).y
        self.layers.append(
            self.base.mark_line(strokeWidth=2, clip=True).encode(
                y=y,
                stroke=self._stroke,
                strokeDash=alt.condition(hollow, alt.value([5, 4]), alt.value([1, 0])),
                opacity=self._pale(1, 0.1),
            )
        )
        return self

    def points(self, size: Any = 60) -> "Plot":
        """The points. size: in square pixels, or a condition."""
        fill = self._by_name(lambda look: "transparent" if look.hollow else look.colour)
        self.layers.append(
            self.base.mark_point(clip=True)
            .encode(
                y=self.y.y,
                stroke=self._stroke,
                fill=alt.Fill(**fill),
                shape=alt.Shape(**self._by_name(lambda look: look.shape)),
                size=alt.value(size) if isinstance(size, int) else size,
                opacity=self._pale(1, 0.08),
                tooltip=hover(self.tells),
            )
            .add_params(self.picked)
        )
        return self

    def labels(self) -> "Plot":
        """Column `label` beside each point, at `dx` and `dy` pixels from it: of `placed`, or to the
        right. The page moves those that would overlap.
        """
        shift = {name: alt.ExprRef(f"datum.{name}") for name in ("dx", "dy")}
        if "dx" not in self.base.data:
            shift = {"dx": GAP, "dy": 0}
        # The page knows labels by their line break. On a narrow one, they have one line.
        shift["text"] = alt.ExprRef(r"narrow ? split(datum.label, '\n')[0] : datum.label")
        text = self.base.transform_filter("datum.label").mark_text(
            align="left", baseline="top" if "dx" in self.base.data else "middle", lineBreak="\n",
            lineHeight=LINE, fontSize=LABEL, color=INK, **shift,
        )  # fmt: skip
        self.layers.append(text.encode(y=self.y.y, opacity=self._pale(1, 0.1)))
        self.labelled = True
        return self

    def panel(self, title: str = "", width: int = WIDTH, height: int = HEIGHT) -> Panel:
        chart = alt.layer(*self.layers).properties(height=height)
        adapts = self.y.kind == "N" or self.labelled
        return Panel(title, chart.add_params(NARROW) if adapts else chart, width)


def _pixels(values: Any, axis: Axis, length: float) -> Any:
    """Where values (numbers or a column) lie along an axis with a domain, in pixels from its
    beginning. Those beyond an end lie there.
    """
    scale = axis.options["scale"].to_dict()
    bend = np.log if scale.get("type") == "log" else np.asarray
    low, high = (float(bend(end)) for end in scale["domain"])
    return length * np.clip((bend(values) - low) / (high - low), 0, 1)


def placed(
    lines: pd.DataFrame,
    x: Axis,
    y: Axis,
    width: int = WIDTH,
    height: int = HEIGHT,
    strokes: Sequence[tuple[float, float, float, float]] = (),
) -> pd.DataFrame:
    """The lines with `dx` and `dy`: where the upper left corner of each `label` stands from its
    point, so that labels keep apart from each other, from labelled points and from strokes where
    they can.

    strokes: level and upright lines of the chart, each from (x, y) to (x, y) in the axes' units.
    """
    across, down = _pixels(lines[x.column], x, width), height - _pixels(lines[y.column], y, height)
    ends = np.array(strokes).reshape(-1, 2, 2)
    drawn = np.stack(
        [_pixels(ends[..., 0], x, width), height - _pixels(ends[..., 1], y, height)], axis=2
    )
    # As thin boxes.
    drawn = np.concatenate([drawn.min(1) - STROKE / 2, drawn.max(1) + STROKE / 2], axis=1)
    named = lines.label != ""
    taken = [
        (left - GAP / 2, top - GAP / 2, left + GAP / 2, top + GAP / 2)
        for left, top in zip(across[named], down[named], strict=True)
    ]
    shifts = []
    for label, left, top in zip(lines.label, across, down, strict=True):
        if not label:
            shifts.append((0.0, 0.0))
            continue
        rows = label.split("\n")
        wide, tall = LETTER * max(map(len, rows)), LINE * len(rows)
        found = []
        for right, below in SIDES:
            dx = {1: GAP, 0: -wide / 2, -1: -GAP - wide}[right]
            dy = {1: GAP, 0: -tall / 2, -1: -GAP - tall}[below]
            box = (left + dx, top + dy, left + dx + wide, top + dy + tall)
            outside = max(0, -box[0], box[2] - width) + max(0, -box[1], box[3] - height)
            cost = 100 * outside + sum(_overlap(box, other) for other in [*taken, *drawn])
            # Other points are covered if need be.
            crowd = (across >= box[0]) & (across <= box[2]) & (down >= box[1]) & (down <= box[3])
            found.append((cost + crowd.sum(), dx, dy, box))
        cost, dx, dy, box = min(found, key=lambda one: one[0])
        taken.append(box)
        shifts.append((dx, dy))
    return lines.assign(dx=[dx for dx, _ in shifts], dy=[dy for _, dy in shifts])


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes (left, top, right, bottom) share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, down)


def few(lines: pd.DataFrame, by: str = "method") -> pd.DataFrame:
    """The lines of the MOST_NAMES names of a column with the best accuracies; all if they are
    fewer.
    """
    best = lines.groupby(by, sort=False).test_accuracy.mean().nlargest(MOST_NAMES)
    return lines[lines[by].isin(best.index)]


def nothing(text: str) -> Panel:
    """A line of text instead of a chart."""
    chart = alt.Chart(pd.DataFrame({"text": [text]}), height=60)
    return Panel("", chart.mark_text(fontSize=14).encode(text="text:N"))


def picture(title: str, reading: str, panels: Sequence[Panel]) -> alt.TopLevelMixin:
    """A figure's panels as one chart for a file, on white, so that it is readable on dark pages
    too.

    reading: how to read it; shown below the title.
    """
    charts = [
        panel.chart.properties(width=panel.width, **({"title": panel.title} if panel.title else {}))
        for panel in panels
    ]
    joined = charts[0] if len(charts) == 1 else alt.concat(*charts, columns=2)
    room = panels[0].width * min(2, len(panels)) + 60
    heading = alt.TitleParams(title, subtitle=textwrap.wrap(reading, room // 6))
    return joined.properties(title=heading, background="white", padding=12).configure(**CONFIG)
