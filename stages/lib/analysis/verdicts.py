"""A hypothesis, stated before the run, and the finding about it."""

from dataclasses import asdict, dataclass
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
class Hypothesis:
    """The part of a finding that is known before anything is measured.

    title: the hypothesis, a statement.
    course: what the course published; empty if the hypothesis is ours.
    rule: how it is judged.
    """

    id: str
    title: str
    course: str
    rule: str


@dataclass(frozen=True)
class Finding(Hypothesis):
    """A hypothesis and its verdict.

    verdict: one of VERDICTS; why: the reason for it.
    here: what was measured, in sentences.
    evidence: the numbers behind that, for JSON.
    average: for a claim about accuracy, the mean difference over all comparisons with its interval,
        which decides.
    """

    verdict: str
    why: str
    here: tuple[str, ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    average: dict[str, Any] | None = None


def finding(
    hypothesis: Hypothesis,
    verdict: str,
    why: str,
    here: tuple[str, ...] = (),
    evidence: tuple[dict[str, Any], ...] = (),
    average: Interval | None = None,
) -> Finding:
    """The finding about a hypothesis."""
    mean = None if average is None else asdict(average)
    return Finding(**asdict(hypothesis), verdict=verdict, why=why, here=here, evidence=evidence,
                   average=mean)  # fmt: skip


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
