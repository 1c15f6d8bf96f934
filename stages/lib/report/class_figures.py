"""What compression costs each class, and the images whose class changed."""

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stages.lib.analysis import class_costs, stage_tables, tables
from stages.lib.analysis.class_costs import Change
from stages.lib.analysis.tables import Table
from stages.lib.core.errors import printable
from stages.lib.report import charts, columns
from stages.lib.report.charts import Look, Plot
from stages.lib.report.columns import Column
from stages.lib.report.figure import Figure, figure
from stages.lib.report.run import BASELINE, Run

# The classes that lose most are drawn, the others are in the table.
DRAWN = 16
CONFUSIONS = 12
LOOKS = {
    "baseline": Look(charts.INK, "diamond"),
    "smallest": Look("#0072B2", "square"),
    "fastest": Look("#D55E00", "circle"),
}
# The images that a file shows, and the longest side of each in pixels.
THUMBNAILS, SIDE = 18, 64


def _known(run: Run) -> dict[str, Any]:
    """The chosen files whose predictions are known, by role."""
    there = run.predicted if BASELINE in run.predicted else {}
    return {role: one for role, one in run.chosen.items() if one["name"] in there}


def by_class(run: Run) -> pd.DataFrame:
    """`class_costs.by_class` for each chosen file, with `role`, `class` and `change`."""
    found = []
    for role, choice in _known(run).items():
        before, after = (run.predicted[name].test for name in (BASELINE, choice["name"]))
        lines = class_costs.by_class(
            run.labels["test"], before, after, len(run.meta["classes"]), run.confidence
        )
        found.append(lines.assign(role=role))
    table = pd.concat(found, ignore_index=True)
    names = [printable(run.meta["classes"][label]) for label in table.label]
    return table.assign(**{"class": names, "change": table.after - table.before})


def _interval(change: float, low: float, high: float) -> str:
    return f"{tables.points(change)} ({tables.points(low)} to {tables.points(high)})"


def _table(lines: pd.DataFrame) -> Table:
    """A row for each class: images, the baseline's accuracy, and what each file changes."""
    roles = list(dict.fromkeys(lines.role))
    first = lines[lines.role == roles[0]][["label", "class", "images", "before"]]
    told = [
        Column("class", "class"),
        Column("test images", "images", tables.count),
        Column("baseline, %", "before", columns.percent_number),
    ]
    for role in roles:
        here = lines[lines.role == role].set_index("label")[["after", "change", "low", "high"]]
        first = first.join(here.add_suffix(f"_{role}"), on="label")
        fields = tuple(f"{name}_{role}" for name in ("change", "low", "high"))
        told += [
            Column(f"{role}, %", f"after_{role}", columns.percent_number),
            Column(f"{role}, Δ points", fields, _interval),
        ]
    return columns.table(first, told)


def _confusions(run: Run) -> Table:
    """The confusions that the files add, most first."""
    found = []
    for role, choice in _known(run).items():
        before, after = (run.predicted[name].test for name in (BASELINE, choice["name"]))
        lines = class_costs.confusions(run.labels["test"], before, after)
        found.append(lines.head(CONFUSIONS).assign(role=role))
    names = [printable(name) for name in run.meta["classes"]]
    lines = stage_tables.concatenated(found)
    lines = lines.assign(
        label=[names[label] for label in lines.label],
        predicted=[names[predicted] for predicted in lines.predicted],
    )
    return columns.table(
        lines,
        [
            Column("file", "role"),
            Column("class", "label"),
            Column("taken for", "predicted"),
            Column("baseline, images", "before", "{:.1f}".format),
            Column("file, images", "after", "{:.1f}".format),
            Column("added", "added", tables.signed),
        ],
        left=3,
    )


def classes(run: Run) -> Figure | None:
    """The accuracy of each class, of the baseline and of the recommended files."""
    if not _known(run):
        return None
    lines = by_class(run)
    worst = lines.groupby("class", sort=False).change.min().sort_values(kind="stable")
    shown = lines[lines["class"].isin(worst.index[:DRAWN])]
    dense = shown.drop_duplicates("class").assign(role="baseline", after=lambda one: one.before)
    points = pd.concat([dense, shown]).rename(columns={"role": "name", "after": "accuracy"})
    order = {name: place for place, name in enumerate(worst.index)}
    points = points.sort_values("class", key=lambda names: names.map(order), kind="stable")
    told = [
        Column("class", "class"), columns.NAME._replace(title="network"),
        Column("accuracy", "accuracy", columns.accuracy),
        Column("images", "images", tables.count),
    ]  # fmt: skip
    plot = Plot(
        points,
        charts.shares("accuracy", "test accuracy of the class", charts.around(points.accuracy)),
        charts.names("class", charts.CUT, grid=True),
        {name: look for name, look in LOOKS.items() if name in set(points.name)},
        told,
    )
    added = _confusions(run)
    losers = {
        role: lines[(lines.role == role)].sort_values("change", kind="stable").iloc[0].to_dict()
        for role in dict.fromkeys(lines.role)
    }
    panel = plot.apart().points(60).panel("", charts.WIDTH, 36 * points["class"].nunique())
    return figure(
        run,
        "classes",
        [panel],
        [
            ("Accuracy of each class", _table(lines)),
            *([("Confusions that compression adds", added)] if added.rows else []),
        ],
        losers=losers,
        balanced={role: class_costs.balanced(lines[lines.role == role]) for role in losers},
        sure={role: int((lines[lines.role == role].high < 0).sum()) for role in losers},
        drawn=points["class"].nunique(),
    )


class Thumbnail(NamedTuple):
    """An image whose class changed. source: the picture as a data URL."""

    source: str
    kind: str
    label: str
    before: str
    after: str


class Changes(NamedTuple):
    """The validation images to which a file gives another class than the baseline of its seed.

    counts: by kind, of all; shown: some of them, lost ones first.
    """

    images: int
    counts: Mapping[str, int]
    shown: list[Thumbnail]


def picture(image: NDArray[np.uint8]) -> str:
    """An image, uint8 [channels, height, width], as a data URL of at most SIDE pixels."""
    found = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    found.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    # Photos are smaller as JPEG, a few pixels as PNG.
    kind, options = ("jpeg", {"quality": 80}) if max(found.size) > 32 else ("png", {})
    found.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def changes(run: Run) -> dict[str, Changes]:
    """The images whose class changed, by role."""
    found = {}
    names = [printable(name) for name in run.meta["classes"]]
    for role, choice in _known(run).items() if run.pictures is not None else ():
        seed = list(run.seeds).index(choice["seed"])
        before, after = (
            run.predicted[name].validation[seed] for name in (BASELINE, choice["name"])
        )
        listed = class_costs.changed(run.labels["validation"], before, after)
        found[role] = Changes(
            len(before),
            {kind: sum(one.kind == kind for one in listed) for kind in ("lost", "won", "neither")},
            [_thumbnail(run.pictures, one, names) for one in listed[:THUMBNAILS]],
        )
    return found


def _thumbnail(images: NDArray[np.uint8], change: Change, names: list[str]) -> Thumbnail:
    return Thumbnail(
        picture(np.asarray(images[change.index])),
        change.kind,
        *(names[index] for index in (change.label, change.before, change.after)),
    )
