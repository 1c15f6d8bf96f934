"""A hypothesis that was stated before the run, and what became of it."""

from dataclasses import asdict, dataclass
from typing import Any

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_MEASURED = "not measured"
VERDICTS = (REPRODUCED, CONTRADICTED, UNDECIDED, NOT_MEASURED)


@dataclass(frozen=True)
class Finding:
    """id; title: the hypothesis, a statement; course: what the course published, empty where the
    hypothesis is ours; rule: how it is judged; here: what was measured, in sentences; evidence: the
    numbers behind that, as JSON holds them; verdict: one of VERDICTS; why: the reason for it.
    """

    id: str
    title: str
    course: str
    rule: str
    here: tuple[str, ...]
    evidence: tuple[dict[str, Any], ...]
    verdict: str
    why: str


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
    ) -> Finding:
        """The finding that this has become."""
        return Finding(**asdict(self), here=here, evidence=evidence, verdict=verdict, why=why)


def weigh(better: int, worse: int) -> str:
    """The verdict on "better" from how many comparisons are better, and worse, beyond doubt: one
    that is worse contradicts, one that is better is wanted.
    """
    if worse:
        return CONTRADICTED
    return REPRODUCED if better else UNDECIDED
