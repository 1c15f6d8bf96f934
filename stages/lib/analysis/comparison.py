"""Compares two runs, metric by metric: better, worse, or within noise.

Accuracies are judged by the interval of their difference (`statistics.unpaired`), file sizes
exactly, latencies only on the same machine. A difference is better or worse if its interval
excludes zero. It is a real loss if the whole interval lies beyond the tolerance.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from stages.lib.analysis import metrics, statistics
from stages.lib.analysis.committed import Manifest, Run
from stages.lib.analysis.statistics import Share
from stages.lib.core import methods

BETTER, WORSE, NOISE = "better", "worse", "within noise"
EQUAL, NEW, GONE = "equal", "new", "gone"
OTHER_MACHINE, OTHER_DATA = "other machine", "other data"


@dataclass(frozen=True)
class Rules:
    """How runs are compared.

    sparsity: at which pruned networks are compared.
    confidence: of the intervals.
    tolerance: the accepted loss, as a share of accuracy and of a file's size.
    """

    sparsity: float
    confidence: float
    tolerance: float


@dataclass(frozen=True)
class Line:
    """A metric of both runs.

    metric: its name.
    unit: "accuracy" (a share), "bytes" or "ms".
    before, after: None if a run does not have it.
    change, low, high: the change with its bounds, None if it was not judged. For accuracies a
        difference in shares, for bytes (which are exact) and ms the ratio after / before.
    """

    metric: str
    unit: str
    before: float | None
    after: float | None
    verdict: str
    change: float | None = None
    low: float | None = None
    high: float | None = None
    real_loss: bool = False


class Value(NamedTuple):
    """A metric of one run.

    number: the mean over seeds; of latencies, the median.
    seeds: of an accuracy, that of each seed.
    spread: of a latency, the factor by which seeds' medians, with their IQRs, differ from the
        number; at least 1.
    """

    number: float
    seeds: dict[int, float] | None = None
    spread: float = 1.0


def _accuracies(run: Run, sparsity: float) -> dict[str, Value]:
    seeds = {
        name: part.set_index("seed").test_accuracy.astype(float).to_dict()
        for name, part in metrics.accuracies(run.rows, sparsity).items()
    }
    return {name: Value(fmean(values.values()), values) for name, values in seeds.items()}


def _sizes(run: Run, sparsity: float) -> dict[str, Value]:
    return {name: Value(size) for name, size in metrics.sizes(run.rows).items()}


def _latency(lines: pd.DataFrame) -> Value:
    median = float(lines.latency_ms.median())
    away = lines.latency_ms / median
    spread = away.where(away >= 1, 1 / away) * (1 + lines.latency_iqr_ms / lines.latency_ms)
    return Value(median, spread=float(spread.max()))


def latencies(run: Run, sparsity: float) -> dict[str, Value]:
    """The latencies of the smallest batch, by method, engine and device: of networks that are not
    pruned, and of those pruned to `sparsity`.
    """
    table = run.latencies.dropna(subset=["latency_ms", "latency_iqr_ms"])
    asked = (table.target_sparsity == 0) | ((table.target_sparsity - sparsity).abs() < 1e-9)
    here = table[asked & table.method.isin(methods.METHODS)]
    here = here[here.batch_size == here.batch_size.min()]
    groups = here.groupby(["method", "engine", "device"], sort=False)
    return {".".join(names).replace(" ", "_"): _latency(lines) for names, lines in groups}


# The metrics, by unit: their name, and their values in a run at a sparsity.
METRICS = {
    "accuracy": ("test_accuracy", _accuracies),
    "bytes": ("bytes_on_disk", _sizes),
    "ms": ("latency_ms", latencies),
}


def _obstacle(unit: str, before: Manifest, after: Manifest) -> str:
    """Why metrics of this unit cannot be judged; empty if they can."""
    if not (before.same_data(after) if unit == "accuracy" else before.same_shape(after)):
        return OTHER_DATA
    return OTHER_MACHINE if unit == "ms" and not before.same_machine(after) else ""


def _judged(unit: str, old: Value, new: Value, rules: Rules, images: int) -> dict[str, Any]:
    """The verdict on a metric that differs, and its change, as fields of a Line.

    Latencies are never a real loss: a busy machine slows a whole run, which the spread within the
    run does not show.
    """
    if unit == "accuracy":
        shares = (Share(value.number, images) for value in (new, old))
        terms = statistics.over_seeds(new.seeds, old.seeds)
        found = statistics.unpaired(*shares, rules.confidence, terms)
        change, low, high = found.estimate, found.low, found.high
        least_loss, most_loss = -high, -low
    else:
        change, spread = new.number / old.number, old.spread * new.spread
        low, high = change / spread, change * spread
        least_loss, most_loss = low - 1, high - 1
    return {
        "verdict": WORSE if least_loss > 0 else BETTER if most_loss < 0 else NOISE,
        "change": change,
        "low": low,
        "high": high,
        "real_loss": unit != "ms" and least_loss > rules.tolerance,
    }


def compare(before: Run, after: Run, rules: Rules) -> list[Line]:
    """A line for each metric that either run has: accuracies, sizes, latencies."""
    lines, images = [], after.manifest.data.images.test
    for unit, (metric, values_of) in METRICS.items():
        olds, news = (values_of(run, rules.sparsity) for run in (before, after))
        obstacle = _obstacle(unit, before.manifest, after.manifest)
        for name in dict.fromkeys([*news, *olds]):
            old, new = olds.get(name), news.get(name)
            if old is None or new is None:
                rest = {"verdict": NEW if old is None else GONE}
            elif obstacle or old == new:
                rest = {"verdict": obstacle or EQUAL}
            else:
                rest = _judged(unit, old, new, rules, images)
            numbers = (value and value.number for value in (old, new))
            lines.append(Line(f"{metric}.{name}", unit, *numbers, **rest))
    return lines
