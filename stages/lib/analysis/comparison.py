"""Two runs, metric by metric: better, worse, or no more than noise.

Accuracies are judged by the interval of their difference (`unpaired`), file sizes exactly,
latencies only on one machine. A difference is better or worse where its interval leaves zero out;
it is a real loss where the whole interval lies beyond the tolerance.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from stages.lib.analysis import headlines, unpaired
from stages.lib.analysis.committed import Run
from stages.lib.analysis.headlines import Latency
from stages.lib.analysis.unpaired import Share

BETTER, WORSE, NOISE = "better", "worse", "within noise"
EQUAL, NEW, GONE = "equal", "new", "gone"
OTHER_MACHINE, OTHER_DATA = "other machine", "other data"


@dataclass(frozen=True)
class Rules:
    """sparsity: where the methods are compared; max_drop of validation accuracy, for the sparsest
    points; confidence of the intervals; tolerance: how large a loss is forgiven, in shares of
    accuracy and of a file's size.
    """

    sparsity: float
    max_drop: float
    confidence: float
    tolerance: float


@dataclass(frozen=True)
class Line:
    """metric: its name; unit: "accuracy" or "sparsity" (shares), "bytes" or "ms"; before and after:
    None where it is not there; change with its bounds low and high, None where nothing was judged:
    of accuracies and, for a sparsity, of the accuracy that is kept there (at `point`) a
    difference in shares, of bytes (no bounds) and ms the ratio after / before.
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


def _line(
    metric: str,
    unit: str,
    values: list[float | None],
    *,
    obstacle: str | None,
    same: bool,
    judge: Callable[[], dict[str, Any]],
) -> Line:
    """values: before and after. obstacle: why they are not to be judged, or None; judge: called
    where there is something to judge, gives the rest of the line.
    """
    if None in values:
        return Line(metric, unit, *values, NEW if values[0] is None else GONE)
    if obstacle or same:
        return Line(metric, unit, *values, obstacle or EQUAL)
    return Line(metric, unit, *values, **judge())


def _names(before: Mapping, after: Mapping) -> list:
    """All names, in after's order, then those that are gone."""
    return [*after, *(name for name in before if name not in after)]


def _by_seed(rows: pd.DataFrame, column: str) -> pd.Series:
    return rows.set_index("seed")[column].sort_index().astype(float)


def _other_data(before: Run, after: Run) -> str | None:
    return None if before.manifest.same_data(after.manifest) else OTHER_DATA


def _judged(
    before: pd.Series, after: pd.Series, shares: list[Share], rules: Rules
) -> dict[str, Any]:
    """Values by seed, the higher the better, and the accuracies that they are made of."""
    low, high = unpaired.interval(before, after, shares, rules.confidence)
    return {
        "verdict": BETTER if low > 0 else WORSE if high < 0 else NOISE,
        "change": float(after.mean() - before.mean()),
        "low": low,
        "high": high,
        "real_loss": high < -rules.tolerance,
    }


def _accuracies(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    found = [headlines.accuracies(run.rows, rules.sparsity) for run in (before, after)]
    images = after.manifest.data["images"]["test"]
    for name in _names(*found):
        seeds = [_by_seed(part[name], "test_accuracy") for part in found if name in part]
        shares = [Share(float(values.mean()), images) for values in seeds]
        yield _line(
            f"test_accuracy.{name}",
            "accuracy",
            [float(part[name].test_accuracy.mean()) if name in part else None for part in found],
            obstacle=_other_data(before, after),
            same=seeds[0].equals(seeds[-1]),
            judge=partial(_judged, seeds[0], seeds[-1], shares, rules),
        )


def _common_points(before: pd.DataFrame, after: pd.DataFrame, name: str) -> list[pd.DataFrame]:
    """Of both runs' rows the baseline's, and those of PRUNED's `name` at the sparsities that both
    measured; of a run that is alone, or of after where they share no sparsity, all.
    """
    arms = [rows[rows.method.isin(headlines.PRUNED[name])] for rows in (before, after)]
    common = set(arms[0].target_sparsity) & set(arms[1].target_sparsity)
    if common:
        arms = [arm[arm.target_sparsity.isin(common)] for arm in arms]
    elif len(arms[1]):
        arms[0] = arms[0].iloc[:0]
    return [
        pd.concat([headlines.baseline(rows), arm])
        for rows, arm in zip((before, after), arms, strict=True)
    ]


def _kept(
    rows: list[pd.DataFrame], name: str, reached: list[float], images: int, rules: Rules
) -> dict[str, Any]:
    """What the sparser point keeps of the baseline's validation accuracy, before and after."""
    point, kept, shares = max(reached), [], []
    for run in rows:
        parts = (headlines.pruned_at(run, name, point), headlines.baseline(run))
        pruned, dense = (_by_seed(part, "validation_accuracy") for part in parts)
        kept.append(pruned - dense)
        shares += [Share(float(values.mean()), images) for values in (pruned, dense)]
    return _judged(*kept, shares, rules) | {"point": point}


def _sparsest(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    """A sparsest point is a step on a grid: whether a step is noise is told by the accuracy that
    the sparser of the two points keeps in either run.
    """
    images = after.manifest.data["images"]["validation"]
    for name in headlines.PRUNED:
        rows = _common_points(before.rows, after.rows, name)
        reached = [headlines.sparsest(run, rules.max_drop).get(name) for run in rows]
        if reached == [None, None]:
            continue
        yield _line(
            f"sparsest_within.{name}",
            "sparsity",
            reached,
            obstacle=_other_data(before, after),
            same=reached[0] == reached[1],
            judge=partial(_kept, rows, name, reached, images, rules),
        )


def _size(before: int, after: int, rules: Rules) -> dict[str, Any]:
    ratio = after / before
    return {
        "verdict": BETTER if ratio < 1 else WORSE,
        "change": ratio,
        "real_loss": ratio > 1 + rules.tolerance,
    }


def _sizes(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    found = [headlines.sizes(run.rows) for run in (before, after)]
    comparable = before.manifest.same_shape(after.manifest)
    for name in _names(*found):
        sizes = [part.get(name) for part in found]
        yield _line(
            f"bytes_on_disk.{name}",
            "bytes",
            sizes,
            obstacle=None if comparable else OTHER_DATA,
            same=sizes[0] == sizes[1],
            judge=partial(_size, *sizes, rules),
        )


def _latency(before: Latency, after: Latency) -> dict[str, Any]:
    """Never a real loss: a busy machine slows a whole run, which no spread within the run shows."""
    ratio, spread = after.median / before.median, before.spread * after.spread
    low, high = ratio / spread, ratio * spread
    verdict = BETTER if high < 1 else WORSE if low > 1 else NOISE
    return {"verdict": verdict, "change": ratio, "low": low, "high": high}


def _latencies(before: Run, after: Run, rules: Rules) -> Iterator[Line]:
    found = [
        headlines.latencies(run.rows, run.latencies, run.formats, rules.sparsity)
        for run in (before, after)
    ]
    obstacle = None if before.manifest.same_machine(after.manifest) else OTHER_MACHINE
    if not before.manifest.same_shape(after.manifest):
        obstacle = OTHER_DATA
    for name in _names(*found):
        times = [part.get(name) for part in found]
        yield _line(
            f"latency_ms.{name}",
            "ms",
            [time and time.median for time in times],
            obstacle=obstacle,
            same=times[0] == times[1],
            judge=partial(_latency, *times),
        )


def compare(before: Run, after: Run, rules: Rules) -> list[Line]:
    """One line per named metric: accuracies, sparsest points, sizes, latencies."""
    return [
        line
        for group in (_accuracies, _sparsest, _sizes, _latencies)
        for line in group(before, after, rules)
    ]
