"""What findings are judged by: a run's tables, and which of its networks can be compared fairly."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.analysis import statistics, tables
from stages.lib.analysis.predictions import Correct, Key
from stages.lib.analysis.statistics import Interval
from stages.lib.core.records import ALL_LAYERS

# Networks of which more than this share of the weights is gone in one and not in the other are not
# of equal sparsity: whole filters, and layers that keep theirs, cannot always meet a target.
MOST_APART = 0.05
FLOAT32 = 32


@dataclass(frozen=True)
class Evidence:
    """rows (records.Row), quantized layers and formats of all seeds; correct: bool [seeds, images]
    by network; sparsity: where methods are compared in one number;
    confidence: of a finding as a whole; tolerance: a loss of accuracy that does not matter; isa:
    the CPU's instruction sets; chance: the accuracy of always naming the commonest class.
    """

    rows: pd.DataFrame
    layers: pd.DataFrame
    formats: pd.DataFrame
    correct: Correct
    sparsity: float
    confidence: float
    tolerance: float
    isa: Sequence[str]
    chance: float


@dataclass(frozen=True)
class Arm:
    """A method at a target sparsity, over all seeds: means of test and validation accuracy, epochs
    trained after the baseline, share of the weights that is gone; correct: bool [seeds, images];
    problem: why it cannot be compared, or empty.
    """

    method: str
    target: float
    accuracy: float
    validation: float
    epochs: int
    sparsity: float
    correct: NDArray | None
    problem: str


Arms = Mapping[tuple[str, float], Arm]


@dataclass(frozen=True)
class Comparison:
    """Two methods at a target sparsity (that of `one`, where `other` is a dense network)."""

    one: str
    other: str
    sparsity: float
    difference: Interval
    one_accuracy: float
    other_accuracy: float
    one_epochs: int
    other_epochs: int

    @property
    def outcome(self) -> str:
        """What the interval says of `one`: better, worse, or undecided where it spans zero."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "undecided"

    def numbers(self) -> dict[str, Any]:
        """As JSON holds it, the interval's fields among the others; shares, not percent."""
        interval = asdict(self.difference)
        flat = asdict(self) | {"difference": interval.pop("estimate"), **interval}
        return flat | {"outcome": self.outcome}


def name(method: str) -> str:
    """A method as people read it."""
    return tables.METHODS.get(method, method)


def images(evidence: Evidence) -> int:
    """How many test images the predictions are of; 0 where there are none."""
    return next((right.shape[1] for right in evidence.correct.values()), 0)


def _problem(rows: pd.DataFrame, seeds: set[int], correct: NDArray | None) -> str:
    if set(rows.seed) != seeds or len(rows) != len(seeds):
        return "not measured for every seed"
    if rows[["test_accuracy", "validation_accuracy"]].isna().any(axis=None):
        return "no accuracy"
    if correct is None or len(correct) != len(seeds):
        return "no stored predictions of every seed"
    return ""


def arms_of(evidence: Evidence) -> dict[tuple[str, float], Arm]:
    """Every whole float32 network, by method and target sparsity."""
    rows, seeds = evidence.rows, set(evidence.rows.seed)
    whole = rows[(rows.layer == ALL_LAYERS) & (rows.weight_bits == FLOAT32)]
    found = {}
    for (method, target), lines in whole.groupby(["method", "target_sparsity"], sort=False):
        correct = evidence.correct.get(Key(method, float(target)))
        found[method, float(target)] = Arm(
            method=method,
            target=float(target),
            accuracy=float(lines.test_accuracy.mean()),
            validation=float(lines.validation_accuracy.mean()),
            epochs=int(lines.extra_epochs.max()),
            sparsity=float(lines.sparsity.mean()),
            correct=correct,
            problem=_problem(lines, seeds, correct),
        )
    return found


def shared(arms: Arms, *methods: str) -> list[float]:
    """The target sparsities above 0 at which all of the methods have rows, ascending."""
    sets = [{target for method, target in arms if method == one} for one in methods]
    return sorted(target for target in set.intersection(*sets) if target > 0)


def at_chance(evidence: Evidence, arm: Arm) -> bool:
    """Whether the network has learned, or has left, nothing."""
    return statistics.at_chance(arm.accuracy, evidence.chance, arm.correct.shape[1])


def unlearned(evidence: Evidence, arms: Arms) -> str:
    """Why no claim about accuracies can be judged; empty where the baseline is a network that has
    learned something.
    """
    baseline = arms.get(("baseline", 0.0))
    if baseline is None:
        return "the baseline was not measured"
    if baseline.problem:
        return f"the baseline: {baseline.problem}"
    if at_chance(evidence, baseline):
        return (
            f"the baseline learned nothing: {100 * baseline.accuracy:.1f} %, and naming the"
            f" commonest class alone gives {100 * evidence.chance:.1f} %"
        )
    return ""


def unfair(one: Arm, other: Arm) -> str:
    """Why two networks cannot be compared; empty where they can."""
    for arm in (one, other):
        if arm.problem:
            return f"{name(arm.method)}: {arm.problem}"
    if other.target > 0 and abs(one.sparsity - other.sparsity) > MOST_APART:
        return (
            f"{tables.percent(round(one.sparsity, 3))} and"
            f" {tables.percent(round(other.sparsity, 3))} of the weights were gone"
        )
    return ""


def on_average(pairs: Sequence[tuple[Arm, Arm]], confidence: float) -> Interval:
    """The mean over the pairs of the paired differences, by one interval."""
    means = (np.mean([arm.correct for arm in arms], axis=0) for arms in zip(*pairs, strict=True))
    return statistics.difference(*means, confidence)


def compare(pairs: Sequence[tuple[Arm, Arm]], confidence: float) -> list[Comparison]:
    """The pairs at a confidence at which all their intervals hold at once (Bonferroni)."""
    each = 1 - (1 - confidence) / max(1, len(pairs))
    return [
        Comparison(
            one=one.method,
            other=other.method,
            sparsity=one.target,
            difference=statistics.difference(one.correct, other.correct, each),
            one_accuracy=one.accuracy,
            other_accuracy=other.accuracy,
            one_epochs=one.epochs,
            other_epochs=other.epochs,
        )
        for one, other in pairs
    ]
