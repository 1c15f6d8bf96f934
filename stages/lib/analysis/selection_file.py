"""The selection for JSON, as the report shows it and the model card repeats it."""

from collections.abc import Sequence
from typing import Any

from stages.lib.analysis import selection, tables
from stages.lib.analysis.selection import BASELINE, Answer, Budgets, Candidate, Choice
from stages.lib.analysis.statistics import Interval


def _rounded(value: float) -> float:
    """Rounds to six significant digits, as in tables."""
    return float(f"{value:.6g}")


def _interval(found: Interval, name: str) -> dict[str, float]:
    return {
        name: _rounded(found.estimate),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
    }


def describe(candidate: Candidate, baseline: Candidate) -> dict[str, Any]:
    """A network and its numbers; None for unknown ones. Accuracies and losses are means over seeds,
    latencies are medians; the file and its bytes are those of the deployed seed.
    """
    row, latency = candidate.shipped, candidate.latency
    milliseconds = latency and _rounded(latency.milliseconds)
    comparable = candidate.ranked and baseline.ranked
    return {
        "name": candidate.name,
        "words": candidate.words,
        "method": row.method,
        "file": row.model,
        "bytes": row.bytes_on_disk,
        "times_smaller": _rounded(baseline.shipped.bytes_on_disk / row.bytes_on_disk),
        "validation_loss": _interval(candidate.loss, "estimate"),
        "test": _interval(candidate.test, "accuracy"),
        "latency_ms": milliseconds,
        "latency_iqr_ms": _rounded(latency.iqr_ms) if latency and latency.iqr_ms else None,
        "engine": latency and latency.engine,
        "batch_size": latency and latency.batch_size,
        "threads": latency and latency.threads,
        "speedup": _rounded(_rounded(baseline.latency.milliseconds) / milliseconds)
        if comparable
        else None,
    }


def _note(answer: Answer, over: str) -> str:
    if len(answer.losses) == 1:
        return ""
    least, *_, most = answer.losses
    return (
        f"{100 * least:g} to {100 * most:g} percentage points: {over} cannot tell these apart"
        f" (± {100 * answer.resolution:.1f})"
    )


def _recommended(choice: Choice, baseline: Candidate, budgets: Budgets) -> dict[str, Any]:
    images = baseline.loss.images
    return {
        "choice": choice.candidate and describe(choice.candidate, baseline),
        "reason": choice.reason,
        "nearest": [
            describe(one, baseline)
            | {
                "misses": {
                    name: None if share is None else _rounded(share)
                    for name, share in selection.overshoot(one, budgets, images).items()
                }
            }
            for one in choice.nearest
        ],
    }


def build(
    candidates: Sequence[Candidate], budgets: Budgets, seeds: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Choice]]:
    """The content of the file, and the recommended choices by role."""
    baseline = next(one for one in candidates if one.rows[0].method == BASELINE)
    over = f"{tables.count(baseline.loss.images)} validation images"
    if len(seeds) > 1:
        over += f" × {len(seeds)} seeds"
    roles = (selection.SMALLEST, selection.FASTEST)
    recommended = {role: selection.choose(candidates, role, budgets) for role in roles}
    answers = selection.answers(candidates, budgets[selection.DROP])
    return {
        "validation_images": baseline.loss.images,
        "test_images": baseline.test.images,
        "seeds": list(seeds),
        "baseline": describe(baseline, baseline),
        "budgets": [
            {
                "losses": list(answer.losses),
                "note": _note(answer, over),
                **{
                    role: choice.candidate and describe(choice.candidate, baseline)
                    for role, choice in answer.choices.items()
                },
            }
            for answer in answers
        ],
        "recommended": {
            role: _recommended(choice, baseline, budgets) for role, choice in recommended.items()
        },
    }, recommended
