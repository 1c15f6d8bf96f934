"""Judges the course's findings, and some of ours, by the measurements of a run.

Each is a hypothesis that is in code before the run: a statement, what the course published, and the
rule by which it is judged (accuracy_claims, format_claims, error_claims).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stages.lib.analysis import accuracy_claims, claims, error_claims, format_claims
from stages.lib.analysis import evidence as fair
from stages.lib.analysis.claims import Claim
from stages.lib.analysis.evidence import Arms, Comparison, Evidence
from stages.lib.analysis.verdicts import VERDICTS, Finding

__all__ = ["VERDICTS", "Comparison", "Evidence", "Finding", "judge", "to_json"]

Judge = Callable[[Evidence, Arms], Finding]


def _of(claim: Claim) -> Judge:
    return lambda evidence, arms: claims.judged(claim, evidence, arms)


# In the order of the course; the last four are ours.
JUDGES: tuple[Judge, ...] = (
    _of(accuracy_claims.GLOBAL_OVER_LAYERWISE),
    accuracy_claims.recovery,
    _of(accuracy_claims.ITERATIVE_BEST),
    _of(accuracy_claims.ITERATIVE_BEST_AT_EQUAL_BUDGET),
    _of(accuracy_claims.UNSTRUCTURED_OVER_STRUCTURED),
    _of(accuracy_claims.UNSTRUCTURED_OVER_STRUCTURED_FINETUNED),
    lambda evidence, _: format_claims.half_size(evidence),
    format_claims.half_accuracy,
    lambda evidence, _: format_claims.float32_on_cpu(evidence),
    lambda evidence, _: format_claims.small_network_on_gpu(evidence),
    lambda evidence, _: format_claims.large_network_on_gpu(evidence),
    lambda evidence, _: error_claims.published_error(evidence, 8),
    lambda evidence, _: error_claims.published_error(evidence, 16),
    lambda evidence, _: error_claims.law(evidence),
    _of(accuracy_claims.MAGNITUDE_OVER_RANDOM),
    _of(accuracy_claims.MAGNITUDE_OVER_RANDOM_FINETUNED),
    _of(accuracy_claims.GLOBAL_OVER_LAYERWISE_FINETUNED),
    _of(accuracy_claims.PRUNED_OVER_DENSE),
)


def judge(evidence: Evidence) -> list[Finding]:
    """All findings, in the order of JUDGES; what was not measured says so."""
    arms = fair.arms_of(evidence)
    return [one(evidence, arms) for one in JUDGES]


def _plain(value: Any) -> Any:
    """A value for JSON: numbers with six significant digits, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def to_json(findings: Sequence[Finding], context: Mapping[str, Any]) -> dict[str, Any]:
    """The content of reports/findings.json. context: what all findings have in common (seeds,
    images, confidence, …).
    """
    return _plain({"context": context, "findings": [asdict(one) for one in findings]})
