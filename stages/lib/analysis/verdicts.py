"""A hypothesis, stated before the run, and the finding about it."""

from dataclasses import dataclass
from typing import Any

from stages.lib.analysis.statistics import Interval

REPRODUCED = "reproduced"
SUGGESTIVE = "suggestive"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_MEASURED = "not measured"
VERDICTS = (REPRODUCED, SUGGESTIVE, CONTRADICTED, UNDECIDED, NOT_MEASURED)
ONE_SEED = "One seed makes it suggestive at most."


@dataclass(frozen=True)
class Finding:
    """A hypothesis, as it is known before anything is measured, and what was found of it.

    title: the hypothesis, a statement.
    course: what the course published; empty if the hypothesis is ours.
    rule: how it is judged.
    verdict: one of VERDICTS; why: the reason for it.
    here: what was measured, in sentences.
    evidence: the numbers behind that, for JSON.
    average: for a claim about accuracy, the mean difference over all comparisons with its interval,
        which decides.
    """

    id: str
    title: str
    course: str
    rule: str
    verdict: str = NOT_MEASURED
    why: str = ""
    here: tuple[str, ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    average: Interval | None = None


def weigh(better: bool | int, worse: bool | int) -> str:
    """The verdict on the claim "better": contradicted if anything is surely worse, reproduced if
    anything is surely better, else undecided.
    """
    if worse:
        return CONTRADICTED
    return REPRODUCED if better else UNDECIDED


def of_one_seed(verdict: str, why: str) -> tuple[str, str]:
    """The verdict about accuracies, and its reason, if there is only one seed: reproduced becomes
    suggestive, and contradicted becomes undecided.
    """
    if verdict == REPRODUCED:
        return SUGGESTIVE, f"{why}; by one seed alone: another training may differ"
    if verdict == CONTRADICTED:
        return UNDECIDED, f"{why}; this speaks against it, but by one seed alone"
    return verdict, why
