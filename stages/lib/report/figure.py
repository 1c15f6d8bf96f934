"""A figure: a picture, what it shows, how to read it, and the numbers behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.lib.analysis.tables import Table
from stages.lib.report import words
from stages.lib.report.charts import Panel
from stages.lib.report.run import Run


@dataclass(frozen=True)
class Figure:
    """A figure of the reports.

    name: of its file, its anchor and its macro in words.j2.
    seen: what the picture shows, in words and numbers.
    reading: what its marks mean.
    tables: the numbers, each with a title.
    """

    name: str
    title: str
    seen: str
    reading: str
    panels: Sequence[Panel]
    tables: Sequence[tuple[str, Table]]


def figure(
    run: Run, name: str, panels: Sequence[Panel], tables: Sequence[tuple[str, Table]], **values: Any
) -> Figure:
    """A figure with its words. values: for its macro in words.j2, besides `run`."""
    title, seen, reading = words.paragraphs(name, run=run, **values)
    return Figure(name, title, seen, reading, panels, tables)
