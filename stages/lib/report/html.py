"""The report as one HTML file that loads nothing.

Its structure is in page.html, its style in page.css, its behaviour in page.js. A bundle of Vega,
Vega-Lite and Vega-Embed draws the charts. A content security policy forbids loading anything and
running other scripts, whatever names the user's data have.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape

from stages.lib.analysis.findings import Finding
from stages.lib.analysis.tables import Table
from stages.lib.analysis.verdicts import VERDICTS
from stages.lib.core import paths
from stages.lib.core.methods import METHODS
from stages.lib.report import charts, context, words
from stages.lib.report.figure import Figure
from stages.lib.report.run import Run


def with_code(text: str) -> Markup:
    """Escapes one of our texts and makes `this` code."""
    parts = str(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def together(text: str) -> str:
    """Keeps a number on one line with its exponent and its unit, and the ends of an interval."""
    text = re.sub(r"(?<=\d)e-(?=\d)", "e\u2060-\u2060", text)
    text = re.sub(r"(?<=\d)–(?=\d)", "\u2060–\u2060", text)
    text = re.sub(r"(?<=\d) to (?=[+−]?\d[\d.]*\))", "\u00a0to\u00a0", text)
    text = re.sub(r"(?<=\d) (?=(%|×|ms|s|B|KiB|MiB|percentage|points)(?!\w))", "\u00a0", text)
    return re.sub("× (?=smaller|faster)", "×\u00a0", text)


def fingerprint(script: str) -> str:
    """The name of an allowed script in a content security policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    script = vl_convert.javascript_bundle()
    # A script element must contain neither. No bundle has had one yet.
    assert "</script" not in script.lower()
    assert "<!--" not in script
    return script


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def chart_id(figure: Figure, number: int) -> str:
    """The id of the element in which a panel is drawn."""
    return f"chart-{figure.name}-{number}"


def _specifications(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """The charts by the id of their element."""
    return {
        chart_id(figure, number): {
            key: value
            for key, value in panel.chart.to_dict().items()
            if key not in ("$schema", "config")
        }
        for figure in figures.values()
        for number, panel in enumerate(figure.panels)
    }


# Of columns in a finding's evidence, if it is not their key.
TITLES = {
    "one": "network", "one_accuracy": "its accuracy", "one_epochs": "its epochs",
    "other": "other network", "other_accuracy": "other's accuracy",
    "other_epochs": "other's epochs",
    "left_out": "why left out",
}  # fmt: skip


def evidence(lines: Sequence[Mapping[str, Any]]) -> Table | None:
    """A table of a finding's numbers with a column for each key, those with text first."""
    lines = [{"outcome": "left out"} | line if "left_out" in line else line for line in lines]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    if not keys:
        return None
    text = [key for key in keys if any(isinstance(line.get(key), str) for line in lines)]
    ordered = text + [key for key in keys if key not in text]
    rows = [tuple(_shown(line.get(key)) for key in ordered) for line in lines]
    titles = [TITLES.get(key, key.replace("_", " ")) for key in ordered]
    return Table(titles, rows, left=len(text))


def _shown(value: Any) -> str:
    """The text of a value of a finding's evidence, which may be a method's name."""
    is_method = isinstance(value, str) and value in METHODS
    return METHODS[value].title if is_method else context.shown(value)


def tally(findings: Sequence[Finding]) -> dict[str, int]:
    """The number of findings with each verdict."""
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in VERDICTS}
    return {verdict: count for verdict, count in counts.items() if count}


def render(run: Run, findings: Sequence[Finding], figures: Mapping[str, Figure]) -> str:
    """Renders the page. figures: of `figures.build` for the same run."""
    environment = words.environment(autoescape=True)
    environment.filters |= {"with_code": with_code, "together": together, "evidence": evidence}
    script, config = _asset(paths.SITE_SCRIPT), charts.CONFIG | {"background": "transparent"}
    return environment.get_template(paths.SITE_TEMPLATE).render(
        context.build(run, findings, figures),
        chart_id=chart_id,
        tally=tally(findings),
        style=Markup(_asset(paths.SITE_STYLE)),
        bundle=Markup(bundle()),
        script=Markup(script),
        data=htmlsafe_json_dumps(
            {"config": config, "charts": _specifications(figures)},
            allow_nan=False,
            ensure_ascii=False,
            separators=(",", ":"),
        ),
        allowed=Markup(f"{fingerprint(bundle())} {fingerprint(script)}"),
    )
