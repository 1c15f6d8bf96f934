"""Summarizes rows over seeds, and formats numbers and networks for people."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from numpy.typing import NDArray
from tabulate import tabulate

from stages.lib.analysis import statistics
from stages.lib.analysis.statistics import Interval
from stages.lib.core import methods
from stages.lib.core.records import ALL_LAYERS

# The columns that identify a network.
KEYS = ("method", "target_sparsity", "weight_bits", "times_smaller")
MEASURED = (
    "sparsity", "parameters", "nonzero_parameters", "macs", "extra_epochs",
    "validation_accuracy", "test_accuracy", "bytes_on_disk",
)  # fmt: skip


def of_family(lines: pd.DataFrame, *families: str) -> pd.DataFrame:
    """The lines whose method belongs to one of these families (core/methods.py)."""
    return lines[lines.method.isin([method.name for method in methods.of_family(*families)])]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """The means over seeds of all measured columns, by method, layer, weight_bits, target_sparsity
    and times_smaller.

    Further columns: `test_accuracy_std` (sample standard deviation, NaN for one seed), `seeds`, and
    as in pruning papers (Blalock et al., 2020) `compression`, the baseline's parameters divided by
    the nonzero ones, and `reduction`, its MACs divided by those left (NaN if none are). `test_top5`
    is NaN if unknown.
    """
    rows = rows.astype({"test_top5": float, "times_smaller": float})
    grouped = rows.groupby([*KEYS, "layer"], sort=False, as_index=False)
    means = grouped[[*MEASURED, "test_top5"]].mean()
    means["test_accuracy_std"] = grouped["test_accuracy"].std()["test_accuracy"]
    means["seeds"] = grouped["seed"].nunique()["seed"]
    dense = means[means.method == "baseline"]
    if len(dense):
        left = means.macs.where(means.macs > 0)
        means["compression"] = dense.parameters.iloc[0] / means.nonzero_parameters
        means["reduction"] = dense.macs.iloc[0] / left
    return means


def intervals(correct: Mapping[tuple, NDArray], confidence: float) -> pd.DataFrame:
    """The interval of each network's test accuracy, for `with_bounds`.

    correct: bool [seeds, images], by `predictions.Key`, which begins with the columns KEYS.
    """
    found = {key: statistics.accuracy(right, confidence) for key, right in correct.items()}
    lines = [(*key[: len(KEYS)], interval.low, interval.high) for key, interval in found.items()]
    return pd.DataFrame(lines, columns=[*KEYS, "low", "high"])


def with_bounds(summary: pd.DataFrame, intervals: pd.DataFrame | None) -> pd.DataFrame:
    """The summary with columns `low` and `high`: the ends of the test accuracy's error bars.

    intervals: of `intervals`, low and high as shares. If it is None or lacks a network, the ends
        are one standard deviation away, or at the mean if there is one seed.
    """
    deviation = summary.test_accuracy_std.fillna(0)
    low = (summary.test_accuracy - deviation).clip(lower=0)
    high = (summary.test_accuracy + deviation).clip(upper=1)
    if intervals is not None:
        keys = [*KEYS, "layer"]
        found = summary[keys].merge(intervals.assign(layer=ALL_LAYERS), "left", keys)
        low, high = (
            pd.Series(found[name].to_numpy(), summary.index).fillna(fallback)
            for name, fallback in (("low", low), ("high", high))
        )
    return summary.assign(low=low, high=high)


def spread(mean: float, std: float) -> str:
    """An accuracy (0…1) in percent, with its standard deviation if known."""
    return f"{100 * mean:.1f}" if math.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f}"


def estimate(mean: float, low: float, high: float) -> str:
    """An accuracy (0…1) in percent, with the ends of its error bar if they differ."""
    text = f"{100 * mean:.1f} %"
    return text if low == high else f"{text} ({100 * low:.1f}–{100 * high:.1f})"


def network(method: str, weight_bits: int, sparsity: float, times_smaller: float = 1) -> str:
    """The name of a network: "iterative, 80 %", "int8, affine, per tensor", "pruned and packed,
    20 ×".
    """
    known = methods.METHODS[method]
    if known.family == methods.PACKED:
        return f"{known.title}, {times_smaller:g} ×"
    if known.family == methods.INTEGER:
        return f"int{weight_bits}, {known.title}"
    return f"{known.title}, {percent(round(sparsity, 3))}" if sparsity > 0 else known.title


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, of which zero has none: +1.2, −0.4, 0.0."""
    rounded = round(value, digits)
    return decimal(rounded, digits) if rounded <= 0 else f"+{rounded:.{digits}f}"


def decimal(value: float, digits: int = 1) -> str:
    """A number with a minus sign only where it needs one: 1.2, −0.4, 0.0."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0 avoids −0.0


def points(share: float, digits: int = 1) -> str:
    """A difference of accuracies in points, with its sign: +1.2."""
    return signed(100 * share, digits)


def interval(difference: Interval) -> str:
    """A difference of accuracies in points, with its interval: +1.2 points (+0.4 to +2.0)."""
    ends = (difference.estimate, difference.low, difference.high)
    return "{} points ({} to {})".format(*map(points, ends))


def loss(found: Mapping[str, float]) -> str:
    """A loss of accuracy in points, with its interval: 0.4 (−0.1 to 0.9)."""
    ends = (found[name] for name in ("estimate", "low", "high"))
    return "{} ({} to {})".format(*(decimal(100 * end) for end in ends))


def percent(share: float) -> str:
    """A share as a percentage without trailing zeros: 0.8 → 80 %, 0.995 → 99.5 %."""
    return f"{100 * share:.4g} %"


def size(count: float) -> str:
    """Bytes in binary units, as in file managers and the course."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024 or unit == "MiB":
            break
        count /= 1024
    return f"{count:.4g} {unit}"


def factor(value: float) -> str:
    """A factor with three significant digits: 4.93 ×; empty if unknown."""
    return "" if pd.isna(value) else f"{value:.3g} ×"


def smaller(value: float) -> str:
    """How many times smaller a file is: 53.6 × smaller, 1.02 × larger."""
    return f"{factor(value)} smaller" if value >= 1 else f"{factor(1 / value)} larger"


def count(number: float) -> str:
    """A count with thousands separators."""
    return f"{number:,.0f}"


def times(number: int, what: str) -> str:
    """A count with its noun: 1 epoch, 5 epochs."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def milliseconds(value: float) -> str:
    """A latency with three significant digits; empty if unknown."""
    if pd.isna(value):
        return ""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


class Table(NamedTuple):
    """A table: headers, and rows of as many texts. The first `left` columns are aligned left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        align = ["left" if index < self.left else "right" for index in range(len(self.headers))]
        return tabulate(
            [[escaped(str(cell)) for cell in row] for row in self.rows],
            list(map(escaped, self.headers)),
            "pipe",
            colalign=align if len(self.rows) else None,
            disable_numparse=True,
        )


def escaped(text: str) -> str:
    """A text on one line in which nothing is Markdown, HTML or a link."""
    line = re.sub(r"[\\`*_\[\]<>|&~$#]", r"\\\g<0>", re.sub(r"\s+", " ", text))
    return re.sub(r"(?i)(https?|ftp)(:)|(www)(\.)|()(@)", r"\1\3\5\\\2\4\6", line)


def sparsest(rows: pd.DataFrame, method: str, max_drop: float) -> float | None:
    """The highest target sparsity at which the method's mean validation accuracy is within
    `max_drop` of the baseline's; 0 if there is none, None if the method was not run.
    """
    whole = rows[rows.layer == ALL_LAYERS]
    means = whole.groupby(["method", "target_sparsity"]).validation_accuracy.mean()
    if method not in means.index:
        return None
    good = means[method][means[method] >= means["baseline"].iloc[0] - max_drop - 1e-9]
    return float(good.index.max()) if len(good) else 0.0
