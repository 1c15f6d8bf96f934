"""The report in Markdown, as GitHub shows it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from stages.lib.analysis import tables
from stages.lib.analysis.findings import Finding
from stages.lib.analysis.tables import Table
from stages.lib.core import paths
from stages.lib.report import context, words
from stages.lib.report.figure import Figure
from stages.lib.report.run import Run

# Tables with more lines than this are folded.
LONG = 24


class Markdown(str):
    """Text that is Markdown already. Templates escape all other text."""


def written(value: Any) -> Any:
    """The text that a template writes for a value. Names from the user's data and network never
    become Markdown or HTML.
    """
    return value if isinstance(value, Markdown) else tables.escaped(str(value))


def table(found: Table, title: str = "") -> Markdown:
    """A table; if it is long and has a title, it is folded and opened by a click."""
    text = found.markdown()
    if title and len(found.rows) > LONG:
        summary = tables.escaped(title)
        text = f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"
    return Markdown(text)


def picture(figure: Figure, folder: str) -> Markdown:
    """A figure's picture, which lies in that folder."""
    file = figure.name + paths.PICTURE
    return Markdown(f"![{tables.escaped(figure.title)}]({folder}/{file})")


def with_code(text: str) -> Markdown:
    """One of our texts, in which `this` is code."""
    parts = text.split("`")
    return Markdown(
        "".join(f"`{part}`" if i % 2 else tables.escaped(part) for i, part in enumerate(parts))
    )


def render(
    run: Run, findings: Sequence[Finding], figures: Mapping[str, Figure], folder: str
) -> str:
    """The whole report. figures: `figures.build` of the same run; folder: of their pictures, beside
    the report.
    """
    environment = words.environment(finalize=written, keep_trailing_newline=True)
    environment.filters |= {
        "table": table,
        "picture": partial(picture, folder=folder),
        "with_code": with_code,
    }
    return environment.get_template(paths.MARKDOWN_TEMPLATE).render(
        context.build(run, findings, figures)
    )
