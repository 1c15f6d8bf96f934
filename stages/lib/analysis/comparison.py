"""Compares two runs, metric by metric: better, worse, or within noise.

Accuracies are judged by the interval of their difference (`statistics.unpaired`), file sizes
exactly, latencies only on the same machine. A difference is better or worse if its interval
excludes zero. It is a real loss if the whole interval lies beyond the tolerance.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from stages.lib.analysis import metrics, statistics
from stages.lib.analysis.committed import Run
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
        difference in shares, for bytes (without bounds) and ms the ratio after / before.
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


def _lines(
    metric: str,
    unit: str,
    found: list[Mapping[str, Any]],
    obstacle: str | None,
    judge: Callable[[str], dict[str, Any]],
    value: Callable[[Any], float] = lambda one: one,
) -> Iterator[Line]:
    """A line for each name in either run.

    found: the metric by name, before and after.
    obstacle: why the two cannot be judged, or None.
    judge: for a name whose values differ, returns the rest of the line.
    value: the number that is shown.
    """
    before, after = found
    for name in dict.fromkeys([*after, *before]):
        both = [before.get(name), after.get(name)]
        values = [None if one is None else value(one) for one in both]
        about = (f"{metric}.{name}", unit, *values)
        if None in values:
            yield Line(*about, NEW if values[0] is None else GONE)
        elif obstacle or both[0] == both[1]:
            yield Line(*about, obstacle or EQUAL)
        else:
            yield Line(*about, **judge(name))


def _accuracies(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    found = [
        {name: dict(zip(part.seed, part.test_accuracy.astype(float), strict=True))
         for name, part in metrics.accuracies(run.rows, rules.sparsity).items()}
        for run in (before, after)
    ]  # fmt: skip
    images = after.manifest.data.images.test

    def judge(name: str) -> dict[str, Any]:
        old, new = (part[name] for part in found)
        shares = (Share(fmean(seeds.values()), images) for seeds in (new, old))
        terms = statistics.over_seeds(new, old)
        difference = statistics.unpaired(*shares, rules.confidence, terms)
        return {
            "verdict": {1: BETTER, 0: NOISE, -1: WORSE}[difference.sign],
            "change": difference.estimate,
            "low": difference.low,
            "high": difference.high,
            "real_loss": difference.high < -rules.tolerance,
        }

    obstacle = None if before.manifest.same_data(after.manifest) else OTHER_DATA
    yield from _lines(
        "test_accuracy", "accuracy", found, obstacle, judge, lambda seeds: fmean(seeds.values())
    )


def _sizes(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    found = [metrics.sizes(run.rows) for run in (before, after)]

    def judge(name: str) -> dict[str, Any]:
        ratio = found[1][name] / found[0][name]
        return {
            "verdict": BETTER if ratio < 1 else WORSE,
            "change": ratio,
            "real_loss": ratio > 1 + rules.tolerance,
        }

    obstacle = None if before.manifest.same_shape(after.manifest) else OTHER_DATA
    yield from _lines("bytes_on_disk", "bytes", found, obstacle, judge)


class Latency(NamedTuple):
    """The latency of a network in one run.

    median: over seeds, in milliseconds.
    spread: the factor by which seeds' medians, with their IQRs, differ from it; at least 1.
    """

    median: float
    spread: float


def _latency(lines: pd.DataFrame) -> Latency:
    median = float(lines.latency_ms.median())
    away = lines.latency_ms / median
    spread = away.where(away >= 1, 1 / away) * (1 + lines.latency_iqr_ms / lines.latency_ms)
    return Latency(median, float(spread.max()))


def latencies(run: Run, sparsity: float) -> dict[str, Latency]:
    """The latencies of the smallest batch, by method, engine and device: of networks that are not
    pruned, and of those pruned to `sparsity`.
    """
    table = run.latencies.dropna(subset=["latency_ms", "latency_iqr_ms"])
    asked = (table.target_sparsity == 0) | ((table.target_sparsity - sparsity).abs() < 1e-9)
    here = table[asked & table.method.isin(methods.METHODS)]
    here = here[here.batch_size == here.batch_size.min()]
    groups = here.groupby(["method", "engine", "device"], sort=False)
    return {".".join(names).replace(" ", "_"): _latency(lines) for names, lines in groups}


def _latencies(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    """Latencies are never a real loss: a busy machine slows a whole run, which the spread within
    the run does not show.
    """
    found = [latencies(run, rules.sparsity) for run in (before, after)]

    def judge(name: str) -> dict[str, Any]:
        old, new = (part[name] for part in found)
        ratio, spread = new.median / old.median, old.spread * new.spread
        low, high = ratio / spread, ratio * spread
        verdict = BETTER if high < 1 else WORSE if low > 1 else NOISE
        return {"verdict": verdict, "change": ratio, "low": low, "high": high}

    obstacle = None if before.manifest.same_machine(after.manifest) else OTHER_MACHINE
    if not before.manifest.same_shape(after.manifest):
        obstacle = OTHER_DATA
    yield from _lines("latency_ms", "ms", found, obstacle, judge, lambda one: one.median)


def compare(before: Run, after: Run, rules: Rules) -> list[Line]:
    """A line for each metric: accuracies, sizes, latencies."""
    return [
        line for group in (_accuracies, _sizes, _latencies) for line in group(before, after, rules)
    ]
