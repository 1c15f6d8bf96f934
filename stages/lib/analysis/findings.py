"""Judges the course's findings, and some of ours, by the measurements of a run.

Each is a hypothesis that is in code before the run: a statement, what the course published, and the
rule by which it is judged (accuracy_claims, format_claims, error_claims).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stages.lib.analysis import claims, error_claims, format_claims
from stages.lib.analysis import evidence as fair
from stages.lib.analysis.accuracy_claims import CLAIMS
from stages.lib.analysis.evidence import Evidence
from stages.lib.analysis.verdicts import VERDICTS, Finding
from stages.lib.core import outputs

__all__ = ["VERDICTS", "Evidence", "Finding", "judge", "to_json"]


def judge(evidence: Evidence) -> list[Finding]:
    """All findings, the course's in its order, then ours; what was not measured says so."""
    arms = fair.arms_of(evidence)
    found = [
        *(claims.judged(claim, evidence, arms) for claim in CLAIMS),
        format_claims.half_size(evidence),
        format_claims.half_accuracy(evidence, arms),
        *(format_claims.timed(claim, evidence) for claim in format_claims.TIMED),
        *(error_claims.published_error(evidence, bits) for bits in error_claims.PUBLISHED),
        error_claims.law(evidence),
    ]
    return sorted(found, key=lambda finding: not finding.course)


def to_json(findings: Sequence[Finding], context: Mapping[str, Any]) -> dict[str, Any]:
    """The content of reports/findings.json. context: what all findings have in common (seeds,
    images, confidence, …).
    """
    return outputs.plain({"context": context, "findings": [asdict(one) for one in findings]})
