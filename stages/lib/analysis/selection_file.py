"""The selection for JSON, as the report shows it and the model card repeats it."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.analysis import selection, tables
from stages.lib.analysis.selection import BASELINE, Answer, Budgets, Candidate, Choice
from stages.lib.core import engines, outputs


def describe(candidate: Candidate, baseline: Candidate) -> dict[str, Any]:
    """A network and its numbers; None for unknown ones. Accuracies and losses are means over seeds,
    latencies are medians; the file and its bytes are those of the deployed seed.
    """
    row, latency = candidate.shipped, candidate.latency
    loss, test = candidate.loss, candidate.test
    ranked = candidate.ranked and baseline.ranked
    return {
        "name": candidate.name,
        "words": candidate.words,
        "method": row.method,
        "seed": row.seed,
        "file": row.model,
        "bytes": row.bytes_on_disk,
        "times_smaller": baseline.shipped.bytes_on_disk / row.bytes_on_disk,
        "validation_loss": {"estimate": loss.estimate, "low": loss.low, "high": loss.high},
        "test": {"accuracy": test.estimate, "low": test.low, "high": test.high},
        "latency_ms": latency and latency.milliseconds,
        "latency_iqr_ms": latency and latency.iqr_ms,
        **{name: getattr(latency, name, None) for name in ("engine", "batch_size", "threads")},
        "speedup": baseline.latency.milliseconds / latency.milliseconds if ranked else None,
    }


def _note(answer: Answer, over: str) -> str:
    if len(answer.losses) == 1:
        return ""
    least, *_, most = answer.losses
    return (
        f"{100 * least:g} to {100 * most:g} percentage points: {over} cannot tell these apart"
        f" (± {100 * answer.resolution:.1f})"
    )


def of_engine(selected: Mapping[str, Any]) -> str:
    """What of the recommended network's speed an engine brings without compression; empty if it
    brings none. selected: of `build`.
    """
    fastest, alone = selected["recommended"][selection.FASTEST]["choice"], selected["unpruned"]
    speedups = [one["speedup"] or 0 if one else 0 for one in (fastest, alone)]
    if min(speedups) <= 1:
        return ""
    engine = engines.ENGINES[alone["engine"]].title
    if fastest["name"] == alone["name"]:
        return f"the speed is {engine}'s alone, as the network is unpruned"
    change = tables.points(alone["test"]["accuracy"] - selected["baseline"]["test"]["accuracy"])
    return (
        f"{engine} alone makes the unpruned network {tables.factor(speedups[1])} faster"
        f" ({change} points)"
    )


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

    def told(candidate: Candidate | None) -> dict[str, Any] | None:
        return candidate and describe(candidate, baseline)

    return outputs.plain({
        "validation_images": baseline.loss.images,
        "test_images": baseline.test.images,
        "seeds": seeds,
        "baseline": told(baseline),
        "unpruned": told(selection.unpruned(candidates)),
        "budgets": [
            {"losses": answer.losses, "note": _note(answer, over)}
            | {role: told(choice.candidate) for role, choice in answer.choices.items()}
            for answer in selection.answers(candidates, budgets[selection.DROP])
        ],
        "recommended": {
            role: {
                "choice": told(choice.candidate),
                "reason": choice.reason,
                "nearest": [
                    told(one) | {"misses": selection.overshoot(one, budgets)}
                    for one in choice.nearest
                ],
            }
            for role, choice in recommended.items()
        },
    }), recommended  # fmt: skip
