"""What a figure is, and what it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from stages.lib.analysis import candidates
from stages.lib.analysis.tables import Table
from stages.lib.report import cost_charts
from stages.lib.report.charts import Panel
from stages.lib.report.markdown import Run


@dataclass(frozen=True)
class Figure:
    """name: of its file and its anchor; seen: what the picture shows, in words and numbers;
    reading: what its marks mean; tables: the numbers, each with a title.
    """

    name: str
    title: str
    seen: str
    reading: str
    panels: Sequence[Panel]
    tables: Sequence[tuple[str, Table]]


@dataclass(frozen=True)
class View:
    """What the figures are made of: a run, its summary with error bars, the same with the files to
    deploy, its networks with costs, and with them those that were cast to half formats.
    """

    run: Run
    summary: pd.DataFrame
    everything: pd.DataFrame
    networks: pd.DataFrame
    with_casts: pd.DataFrame

    @property
    def dense(self) -> pd.Series:
        return self.networks[self.networks.method == "baseline"].iloc[0]


def view(run: Run) -> View:
    """What the figures of a run are made of."""
    summary = run.summary()
    networks = run.networks()
    dense = networks[networks.method == "baseline"].iloc[0]
    casts = cost_charts.cast_networks(
        run.formats, *candidates.latency_setting(run.latencies), dense
    )
    with_casts = pd.concat([networks, casts], ignore_index=True)
    return View(run, summary, run.everything(), networks, with_casts)


def percent(share: float) -> str:
    """An accuracy in percent: 0.951 → 95.1 %."""
    return f"{100 * share:.1f} %"


def sentence(parts: Sequence[str], otherwise: str) -> str:
    """Parts joined to one sentence with a capital letter."""
    text = "; ".join(parts) or otherwise
    return f"{text[0].upper()}{text[1:]}."


def bars(run: Run) -> str:
    """What error bars show, as a sentence; empty where there are none."""
    shown = run.error_bars()
    return f"Bars: {shown}. " if shown else ""
