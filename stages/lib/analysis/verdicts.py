"""A hypothesis, stated before the run, and the finding about it."""

from dataclasses import asdict, dataclass
from typing import Any

from stages.lib.analysis.statistics import Interval

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_MEASURED = "not measured"
VERDICTS = (REPRODUCED, CONTRADICTED, UNDECIDED, NOT_MEASURED)


@dataclass(frozen=True)
class Finding:
    """A hypothesis and its verdict.

    title: the hypothesis, a statement.
    course: what the course published; empty if the hypothesis is ours.
    rule: how it is judged.
    here: what was measured, in sentences.
    evidence: the numbers behind that, for JSON.
    verdict: one of VERDICTS.
    why: the reason for the verdict.
    average: for a claim about accuracy, the mean difference with its interval, which decides.
    """

    id: str
    title: str
    course: str
    rule: str
    here: tuple[str, ...]
    evidence: tuple[dict[str, Any], ...]
    verdict: str
    why: str
    average: dict[str, Any] | None = None


@dataclass(frozen=True)
class Hypothesis:
    """The part of a finding that is known before anything is measured. Fields as in Finding."""

    id: str
    title: str
    course: str
    rule: str

    def found(
        self,
        verdict: str,
        why: str,
        here: tuple[str, ...] = (),
        evidence: tuple[dict[str, Any], ...] = (),
        average: Interval | None = None,
    ) -> Finding:
        """The finding about this hypothesis."""
        return Finding(
            **asdict(self),
            here=here,
            evidence=evidence,
            verdict=verdict,
            why=why,
            average=None if average is None else asdict(average),
        )


def weigh(better: bool | int, worse: bool | int) -> str:
    """The verdict on the claim "better": contradicted if anything is surely worse, reproduced if
    anything is surely better, else undecided.
    """
    if worse:
        return CONTRADICTED
    return REPRODUCED if better else UNDECIDED
