"""The evidence for findings: a run's tables, and which networks can be compared fairly."""

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

# Networks whose sparsities differ by more than this are not compared. Removing filters cannot
# always meet a target.
MOST_APART = 0.05
FLOAT32 = 32


@dataclass(frozen=True)
class Evidence:
    """The evidence of a run.

    rows, layers, formats: records.Row, quantized layers and number formats of all seeds.
    correct: whether each network is right, bool [seeds, images].
    sparsity: at which methods are compared by one number.
    confidence: of a finding as a whole.
    tolerance: a loss of accuracy that does not matter.
    isa: the CPU's instruction sets.
    chance: the accuracy of always predicting the commonest class.
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
    """A method at a target sparsity, over all seeds.

    accuracy, validation: means of test and validation accuracy.
    epochs: of training after the baseline.
    sparsity: the mean share of removed weights.
    correct: bool [seeds, images].
    problem: why it cannot be compared; empty if it can.
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
    """Two methods at a target sparsity (that of `one` if `other` is not pruned)."""

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
        """Whether `one` is better or worse; undecided if the interval contains zero."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "undecided"

    def numbers(self) -> dict[str, Any]:
        """The comparison for JSON, with the interval's fields among the others; in shares."""
        interval = asdict(self.difference)
        flat = asdict(self) | {"difference": interval.pop("estimate"), **interval}
        return flat | {"outcome": self.outcome}


def name(method: str) -> str:
    """A method's name for people."""
    return tables.METHODS.get(method, method)


def images(evidence: Evidence) -> int:
    """The number of test images that the predictions are of; 0 without predictions."""
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
    """The target sparsities above 0 at which all these methods have rows, ascending."""
    sets = [{target for method, target in arms if method == one} for one in methods]
    return sorted(target for target in set.intersection(*sets) if target > 0)


def at_chance(evidence: Evidence, arm: Arm) -> bool:
    """Whether the network is at chance level."""
    return statistics.at_chance(arm.accuracy, evidence.chance, arm.correct.shape[1])


def unlearned(evidence: Evidence, arms: Arms) -> str:
    """Why no claim about accuracies can be judged; empty if the baseline has learned something."""
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
    """Why two networks cannot be compared; empty if they can."""
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
    """The interval of the paired difference, averaged over the pairs."""
    means = (np.mean([arm.correct for arm in arms], axis=0) for arms in zip(*pairs, strict=True))
    return statistics.difference(*means, confidence)


def compare(pairs: Sequence[tuple[Arm, Arm]], confidence: float) -> list[Comparison]:
    """Compares the pairs at a confidence at which all intervals hold together (Bonferroni)."""
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
