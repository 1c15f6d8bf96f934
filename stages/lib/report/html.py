"""The page that people show to others: one HTML file with everything in it.

Its looks are in website.css, its structure in website.html, what moves in website.js; the charts
are drawn by one bundle of Vega, Vega-Lite and Vega-Embed. A content security policy lets the page
load nothing and run no other script than those, whatever the names in a user's data are.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup, escape

from stages.lib.analysis import candidates, tables
from stages.lib.analysis.candidates import Answer
from stages.lib.analysis.findings import Finding
from stages.lib.analysis.tables import Table
from stages.lib.core import paths
from stages.lib.core.params import NO_WEIGHTS
from stages.lib.report import charts, deployment_tables, report_tables
from stages.lib.report.figures import Figure
from stages.lib.report.markdown import Run, answers_note, busy, protocol, remarks, touched

# The figures by what they tell of, in the order of the page; a pair stands side by side where
# there is room.
SECTIONS = (
    ("accuracy", "What does pruning cost?", (("accuracy",), ("close_up",), ("recovery",))),
    ("size", "How small?", (("size",), ("packed",), ("ladder",))),
    ("speed", "How fast?", (("latency",), ("engines",), ("structured",), ("formats",))),
    ("layers", "Which layers can be pruned?", (("sensitivity",),)),
    ("quantization", "How few bits?", (("bits", "error"),)),
)
# Verdicts, with a sign for those who see no colour.
SIGNS = {"reproduced": "✓", "contradicted": "✗", "undecided": "?", "not measured": "–"}
# More names than this are folded.
MANY_NAMES = 24


def in_json(value: Any) -> str:
    """JSON that can stand inside a script element: no name in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def with_code(text: str) -> Markup:
    """A text of ours in which `this` is code, escaped."""
    parts = str(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def together(text: str) -> str:
    """A text in which a number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=(%|×|ms|B|KiB|MiB|points?)(?!\w))", "\u00a0", text)


def fingerprint(script: str) -> str:
    """How a content security policy names a script that may run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    script = vl_convert.javascript_bundle()
    # Neither may stand in a script element; no bundle yet had one.
    assert "</script" not in script.lower()
    assert "<!--" not in script
    return script


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"with_code": with_code, "together": together}
    return environment.get_template(paths.SITE_TEMPLATE)


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def chart_id(figure: Figure, number: int) -> str:
    return f"chart-{figure.name}-{number}"


def _specifications(figures: Sequence[Figure]) -> dict[str, Any]:
    """The charts by the id of the element that they are drawn in; the page knows the rest."""
    found = {}
    for figure in figures:
        for number, panel in enumerate(figure.panels):
            specification = panel.chart.to_dict()
            for key in ("$schema", "config"):
                specification.pop(key, None)
            found[chart_id(figure, number)] = specification
    return found


def _cell(choice: pd.Series | None, before: pd.Series | None, dense: pd.Series, cost: str) -> dict:
    """One network that can be had, in words. before: the choice at the loss above."""
    if choice is None:
        return {"value": "not measured"}
    return {
        "value": report_tables.cost_text(choice, cost),
        "saving": report_tables.saving_text(choice, dense, cost),
        "network": choice.network,
        "accuracy": tables.estimate(choice.test_accuracy, choice.low, choice.high),
        "masked": cost == "macs" and choice.masked,
        "dense": choice.method == "baseline",
        "same": before is not None and before.name == choice.name,
    }


def _answers(found: Sequence[Answer], dense: pd.Series) -> list[dict]:
    rows, before = [], None
    for answer in found:
        cells = [
            _cell(choice, before.choices[cost] if before else None, dense, cost)
            for cost, choice in answer.choices.items()
        ]
        rows.append({"loss": report_tables.points(answer.loss), "cells": cells})
        before = answer
    return rows


def _shown(value: Any) -> str:
    """A value of a finding's evidence, for a table."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return tables.METHODS.get(value, str(value)) if isinstance(value, str) else str(value)


def evidence(lines: Sequence[Mapping[str, Any]]) -> Table | None:
    """A finding's numbers: a column for every key that a line has, those with text first."""
    keys = list(dict.fromkeys(key for line in lines for key in line))
    if not keys:
        return None
    text = [key for key in keys if any(isinstance(line.get(key), str) for line in lines)]
    ordered = text + [key for key in keys if key not in text]
    rows = [tuple(_shown(line.get(key)) for key in ordered) for line in lines]
    return Table([key.replace("_", " ") for key in ordered], rows, left=len(text))


def _findings(found: Sequence[Finding]) -> dict:
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in SIGNS}
    return {
        "counts": {verdict: count for verdict, count in counts.items() if count},
        "list": [
            {
                "id": one.id,
                "title": one.title,
                "verdict": one.verdict,
                "why": one.why,
                "course": one.course,
                "rule": one.rule,
                "here": one.here,
                "evidence": evidence(one.evidence),
            }
            for one in found
        ],
    }


def _facts(run: Run, dense: pd.Series) -> list[tuple[str, str]]:
    """What was run, in a few lines: term and text."""
    meta, machine = run.meta, run.hardware
    counts, shape = meta["images"], "×".join(map(str, meta["image_shape"]))
    start = "" if run.weights == NO_WEIGHTS else f", from the weights {run.weights}"
    left_out = meta["unreadable_count"]
    isa = [name for name in machine["isa"] if not name.startswith("sse")]
    return [
        ("Network", f"{run.network}{start}; {tables.count(dense.parameters)} parameters"),
        ("Pruned", touched(run.inventory)),
        (
            "Data",
            f"{meta['source']}, {len(meta['classes'])} classes, images {shape}"
            + (f"; {tables.times(left_out, 'unreadable file')} left out" if left_out else ""),
        ),
        (
            "Splits",
            f"{tables.count(counts['train'])} train, {tables.count(counts['validation'])}"
            f" validation, {tables.count(counts['test'])} test; choices are made on validation,"
            " test is reported alone",
        ),
        ("Checksum", f"SHA-256 {meta['checksum']}"),
        ("Seeds", protocol(run)),
        (
            "Machine",
            f"{machine['cpu']} ({machine['machine']}, {machine['cores']} cores; instruction sets"
            f" {', '.join(isa) or 'none known'}); GPU: {', '.join(machine['gpus']) or 'none'}",
        ),
        (
            "Versions",
            f"{machine['system']}, Python {machine['python']}, torch {machine['torch']},"
            f" torchvision {machine['torchvision']}",
        ),
    ]


def _times(run: Run) -> Table | None:
    """What each stage took, seed by seed; None where nothing is known."""
    if not run.seconds:
        return None
    rows = [
        (
            stage,
            *(f"{taken[seed]:,.1f}" if seed in taken else "" for seed in run.seeds),
            f"{sum(taken.values()):,.1f}",
        )
        for stage, taken in run.seconds.items()
    ]
    total = sum(sum(taken.values()) for taken in run.seconds.values())
    rows.append(("all", *("" for _ in run.seeds), f"{total:,.1f}"))
    return Table(("stage", *(f"seed {seed}, s" for seed in run.seeds), "together, s"), rows)


def _settings(run: Run) -> Table:
    """params.yaml, line by line."""
    rows = []
    for section, value in run.settings.items():
        keys = value if isinstance(value, Mapping) else {"": value}
        rows += [(f"{section}.{key}" if key else section, _shown(one)) for key, one in keys.items()]
    return Table(("param", "value"), rows, left=2)


def _summary_line(run: Run, dense: pd.Series) -> str:
    machine = run.hardware
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return (
        f"{run.network} on {run.meta['source']}, {len(run.meta['classes'])} classes ·"
        f" {tables.times(len(run.seeds), 'seed')} · {machine['cpu']}, {machine['cores']} cores,"
        f" {gpus}"
    )


def render(run: Run, findings: Sequence[Finding], figures: Sequence[Figure]) -> str:
    """The whole page. figures: `figures.build` of the same run."""
    networks = run.networks()
    dense = networks[networks.method == "baseline"].iloc[0]
    named = {figure.name: figure for figure in figures}
    sections = [
        (
            anchor,
            title,
            [shown for group in groups if (shown := [named[one] for one in group if one in named])],
        )
        for anchor, title, groups in SECTIONS
    ]
    script = _asset(paths.SITE_SCRIPT)
    card = run.deployed.card if run.deployed else {}
    recommendation = card and (
        deployment_tables.recommendation(card),
        deployment_tables.budgets(card),
    )
    config = charts.CONFIG | {"background": "transparent"}
    return _template().render(
        run=run,
        dense=dense,
        facts_of_dense=[
            ("test accuracy", tables.estimate(dense.test_accuracy, dense.low, dense.high)),
            ("file", tables.size(dense.bytes_on_disk)),
            ("MACs an image", tables.count(dense.macs)),
            (
                "latency, batch {1} on {0}".format(*candidates.latency_setting(run.latencies)),
                f"{tables.milliseconds(dense.latency_ms)} ms",
            ),
        ],
        summary_line=_summary_line(run, dense),
        remarks=[*remarks(run, dense), *busy(run.latencies)],
        costs=list(report_tables.COST_TITLES.values()),
        answers=_answers(
            candidates.answers(networks, candidates.clock_noise(run.latencies)), dense
        ),
        answers_note=answers_note(run),
        recommendation=recommendation,
        findings=_findings(findings),
        signs=SIGNS,
        sections=[section for section in sections if section[2]],
        learning=named.get("learning"),
        chart_id=chart_id,
        facts=_facts(run, dense),
        classes=run.meta["classes"],
        many_names=MANY_NAMES,
        times=_times(run),
        settings=_settings(run) if run.settings else None,
        style=Markup(_asset(paths.SITE_STYLE)),
        bundle=Markup(_bundle()),
        script=Markup(script),
        data=Markup(in_json({"config": config, "charts": _specifications(figures)})),
        allowed=f"{fingerprint(_bundle())} {fingerprint(script)}",
    )
