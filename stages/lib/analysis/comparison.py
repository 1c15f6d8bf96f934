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
    max_drop: of validation accuracy, for the sparsest points.
    confidence: of the intervals.
    tolerance: the accepted loss, as a share of accuracy and of a file's size.
    """

    sparsity: float
    max_drop: float
    confidence: float
    tolerance: float


@dataclass(frozen=True)
class Line:
    """A metric of both runs.

    metric: its name.
    unit: "accuracy" or "sparsity" (shares), "bytes" or "ms".
    before, after: None if a run does not have it.
    change, low, high: the change with its bounds, None if it was not judged. For accuracies a
        difference in shares; for a sparsity the difference of the accuracy that is kept at `point`;
        for bytes (without bounds) and ms the ratio after / before.
    """

    metric: str
    unit: str
    before: float | None
    after: float | None
    verdict: str
    change: float | None = None
    low: float | None = None
    high: float | None = None
    point: float | None = None
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


class Kept(NamedTuple):
    """An accuracy by seed, and the accuracy of the same run that it is compared with, if any."""

    accuracy: Mapping[int, float]
    reference: Mapping[int, float] = {}

    @property
    def differences(self) -> dict[int, float]:
        """The differences by seed."""
        return {seed: value - self.reference.get(seed, 0) for seed, value in self.accuracy.items()}

    def shares(self, images: int) -> tuple[list[Share], list[Share]]:
        """The accuracy and the reference, with the number of images."""
        return tuple(
            [Share(fmean(values.values()), images)] if values else []
            for values in (self.accuracy, self.reference)
        )


def _kept(rows: pd.DataFrame, column: str, reference: pd.DataFrame | None = None) -> Kept:
    parts = (rows,) if reference is None else (rows, reference)
    return Kept(*(dict(zip(part.seed, part[column].astype(float), strict=True)) for part in parts))


def _judged(before: Kept, after: Kept, images: int, rules: Rules) -> dict[str, Any]:
    old, old_reference = before.shares(images)
    new, new_reference = after.shares(images)
    found = statistics.unpaired(
        [*new, *old_reference],
        [*old, *new_reference],
        rules.confidence,
        statistics.over_seeds(after.differences, before.differences),
    )
    return {
        "verdict": BETTER if found.low > 0 else WORSE if found.high < 0 else NOISE,
        "change": found.estimate,
        "low": found.low,
        "high": found.high,
        "real_loss": found.high < -rules.tolerance,
    }


def _other_data(before: Run, after: Run) -> str | None:
    return None if before.manifest.same_data(after.manifest) else OTHER_DATA


def _accuracies(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    found = [
        {name: _kept(part, "test_accuracy")
         for name, part in metrics.accuracies(run.rows, rules.sparsity).items()}
        for run in (before, after)
    ]  # fmt: skip
    images = after.manifest.data.images.test
    yield from _lines(
        "test_accuracy", "accuracy", found, _other_data(before, after),
        lambda name: _judged(*(part[name] for part in found), images, rules),
        lambda kept: fmean(kept.accuracy.values()),
    )  # fmt: skip


def _sparsest(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    """A sparsest point is a step on a grid: only sparsities that both runs measured are considered.
    Whether a step is noise is judged by how much of the baseline's validation accuracy each run
    keeps at the sparser of the two points.
    """
    images = after.manifest.data.images.validation
    runs = (before.rows, after.rows)

    def reached(rows: pd.DataFrame) -> dict[str, float]:
        points = {}
        for name in metrics.pruned():
            old, new = (set(run[run.method == name].target_sparsity) for run in runs)
            there = rows.target_sparsity.isin(old & new or new or old)
            points |= metrics.sparsest(
                rows[there | (rows.method == "baseline")], [name], rules.max_drop
            )
        return points

    found = [reached(rows) for rows in runs]

    def judge(name: str) -> dict[str, Any]:
        point = max(part[name] for part in found)
        kept = (
            _kept(metrics.at(rows, name, point), "validation_accuracy", metrics.baseline(rows))
            for rows in runs
        )
        return _judged(*kept, images, rules) | {"point": point}

    yield from _lines("sparsest_within", "sparsity", found, _other_data(before, after), judge)


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
    """A line for each metric: accuracies, sparsest points, sizes, latencies."""
    return [
        line
        for group in (_accuracies, _sparsest, _sizes, _latencies)
        for line in group(before, after, rules)
    ]
