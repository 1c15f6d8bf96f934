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
from stages.lib.core.methods import METHODS
from stages.lib.core.records import ALL_LAYERS

# Networks whose sparsities differ by more than this are not compared. Removing filters cannot
# always meet a target.
MOST_APART = 0.05
FLOAT32 = 32
# What an interval says of the first of two, by its sign.
OUTCOMES = {1: "better", 0: "undecided", -1: "worse"}


@dataclass(frozen=True)
class Evidence:
    """The evidence of a run, of all seeds.

    rows, layers: records.Row and records.QUANTIZED_LAYER.
    formats: of `number_formats.with_latencies`.
    correct: whether each network is right on each test image.
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

    @property
    def images(self) -> int:
        """The number of test images that the predictions are of; 0 without predictions."""
        return next((right.shape[1] for right in self.correct.values()), 0)


@dataclass(frozen=True, eq=False)
class Arm:
    """A method at a target sparsity, over all seeds.

    accuracy, validation: means of test and validation accuracy.
    epochs: of training after the baseline.
    sparsity: the mean share of removed weights.
    correct: bool [seeds, test images].
    problem: why it cannot be compared; empty if it can.
    at_chance: whether it is no better than chance.
    """

    method: str
    target: float
    accuracy: float
    validation: float
    epochs: int
    sparsity: float
    correct: NDArray | None
    problem: str
    at_chance: bool

    @property
    def name(self) -> str:
        """The method's name for people."""
        return METHODS[self.method].title

    @property
    def told(self) -> str:
        """Its name, accuracy and training."""
        trained = f" after {tables.times(self.epochs, 'epoch')}" if self.epochs else ""
        return f"{self.name} {100 * self.accuracy:.1f} %{trained}"


Arms = Mapping[tuple[str, float], Arm]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two networks at a target sparsity (that of `one` if `other` is not pruned)."""

    one: Arm
    other: Arm
    difference: Interval

    @property
    def sparsity(self) -> float:
        """The target sparsity of the comparison."""
        return self.one.target

    def numbers(self) -> dict[str, Any]:
        """The comparison for JSON, with the interval's fields among the others; in shares."""
        numbers = {"sparsity": self.sparsity, "outcome": OUTCOMES[self.difference.sign]}
        for side, arm in (("one", self.one), ("other", self.other)):
            numbers[side] = arm.method
            numbers |= {f"{side}_accuracy": arm.accuracy, f"{side}_epochs": arm.epochs}
        interval = asdict(self.difference)
        return numbers | {"difference": interval.pop("estimate")} | interval


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
    arms = {}
    for (method, target), lines in whole.groupby(["method", "target_sparsity"], sort=False):
        correct = evidence.correct.get(Key(method, float(target)))
        accuracy = float(lines.test_accuracy.mean())
        arms[method, float(target)] = Arm(
            method, float(target), accuracy,
            validation=float(lines.validation_accuracy.mean()),
            epochs=int(lines.extra_epochs.max()),
            sparsity=float(lines.sparsity.mean()),
            correct=correct,
            problem=_problem(lines, seeds, correct),
            at_chance=statistics.at_chance(accuracy, evidence.chance, evidence.images or 1),
        )  # fmt: skip
    return arms


def unlearned(evidence: Evidence, arms: Arms) -> str:
    """Why no claim about accuracies can be judged; empty if the baseline has learned something."""
    baseline = arms.get(("baseline", 0.0))
    if baseline is None or baseline.problem:
        return f"the baseline: {baseline.problem if baseline else 'not measured'}"
    if not baseline.at_chance:
        return ""
    return (
        f"the baseline learned nothing: {100 * baseline.accuracy:.1f} %, and naming the"
        f" commonest class alone gives {100 * evidence.chance:.1f} %"
    )


def unfair(one: Arm, other: Arm) -> str:
    """Why two networks cannot be compared; empty if they can."""
    for arm in (one, other):
        if arm.problem:
            return f"{arm.name}: {arm.problem}"
    if other.target > 0 and abs(one.sparsity - other.sparsity) > MOST_APART:
        shares = (tables.percent(round(arm.sparsity, 3)) for arm in (one, other))
        return f"{' and '.join(shares)} of the weights were gone"
    return ""


def on_average(pairs: Sequence[tuple[Arm, Arm]], confidence: float) -> Interval:
    """The interval of the paired difference, averaged over the pairs."""
    means = (np.mean([arm.correct for arm in arms], axis=0) for arms in zip(*pairs, strict=True))
    return statistics.difference(*means, confidence)


def compare(pairs: Sequence[tuple[Arm, Arm]], confidence: float) -> list[Comparison]:
    """Compares the pairs at a confidence at which all intervals hold together (Bonferroni)."""
    each = 1 - (1 - confidence) / max(1, len(pairs))
    return [
        Comparison(one, other, statistics.difference(one.correct, other.correct, each))
        for one, other in pairs
    ]
