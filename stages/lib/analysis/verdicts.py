"""A hypothesis that was stated before the run, and what became of it."""

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
    """id; title: the hypothesis, a statement; course: what the course published, empty where the
    hypothesis is ours; rule: how it is judged; here: what was measured, in sentences; evidence: the
    numbers behind that, as JSON holds them; verdict: one of VERDICTS; why: the reason for it;
    average: of a claim on accuracy the mean difference over all that was compared, with its
    interval, which decides.
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
    """What of a finding is known before anything is measured; fields as there."""

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
        """The finding that this has become."""
        return Finding(
            **asdict(self),
            here=here,
            evidence=evidence,
            verdict=verdict,
            why=why,
            average=None if average is None else asdict(average),
        )


def weigh(better: bool | int, worse: bool | int) -> str:
    """The verdict on "better" from what is better, and what is worse, beyond doubt: one that is
    worse contradicts, one that is better is wanted.
    """
    if worse:
        return CONTRADICTED
    return REPRODUCED if better else UNDECIDED
