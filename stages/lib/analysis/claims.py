"""Judges the claim that one way of pruning keeps more accuracy than another.

One interval decides (analysis/statistics.py): that of the paired difference, averaged over every
sparsity above 0 that the methods share. No single sparsity may contradict it: the intervals of the
single sparsities are at a confidence corrected for their number (Bonferroni), so that all hold at
once. And no single sparsity may carry it: if there are three or more, the mean without each is
computed too. Pairs that cannot be compared fairly are left out, with the reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.lib.analysis import evidence as fair
from stages.lib.analysis import tables
from stages.lib.analysis.evidence import Arm, Arms, Comparison, Evidence
from stages.lib.analysis.statistics import Interval
from stages.lib.analysis.verdicts import NOT_MEASURED, Finding, Hypothesis, weigh

DENSE = ("baseline", "baseline_finetune", "baseline_long")
JUDGED = (
    "Reproduced if the mean difference over all sparsities lies with its whole interval above"
    " zero, and at no single one below; contradicted if it lies below, or a single one does; else"
    " undecided. One of three or more sparsities must not carry the mean: without it, it would be"
    " less than half as large, and its interval reach zero."
)
LEAST_TO_LEAVE_OUT = 3


def _no_notes(_: Arms, __: Sequence[Comparison]) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Claim:
    """The claim that a method is better than others at equal sparsity.

    contrasts: a method and its rivals. At each sparsity, it is compared with the rival that has the
        best validation accuracy.
    equal_epochs: whether only pairs with equally many epochs are compared.
    notes: makes more sentences from the arms and the comparisons.
    """

    hypothesis: Hypothesis
    contrasts: tuple[tuple[str, tuple[str, ...]], ...]
    equal_epochs: bool = False
    notes: Callable[[Arms, Sequence[Comparison]], tuple[str, ...]] = _no_notes


@dataclass(frozen=True)
class LeftOut:
    """A pair that is not compared, and the reason."""

    one: str
    other: str
    sparsity: float
    left_out: str


def _pairs(claim: Claim, arms: Arms) -> list[tuple[Arm, Arm]]:
    """Each method with its strongest rival or, if a rival cannot be compared, with that one."""
    found = []
    for method, rivals in claim.contrasts:
        sparse = [rival for rival in rivals if rival not in DENSE]
        for target in fair.shared(arms, method, *sparse):
            against = [arms.get((rival, 0.0 if rival in DENSE else target)) for rival in rivals]
            if None not in against:
                unsound = [arm for arm in against if arm.problem]
                strongest = max(against, key=lambda arm: arm.validation)
                found.append((arms[method, target], unsound[0] if unsound else strongest))
    return found


def sifted(
    pairs: Sequence[tuple[Arm, Arm]], why_not: Callable[[Arm, Arm], str]
) -> tuple[list[tuple[Arm, Arm]], list[LeftOut]]:
    kept, left_out = [], []
    for one, other in pairs:
        reason = fair.unfair(one, other) or why_not(one, other)
        if reason:
            left_out.append(LeftOut(one.method, other.method, one.target, reason))
        else:
            kept.append((one, other))
    return kept, left_out


def sentence(comparison: Comparison) -> str:
    """A sentence with both accuracies in percent and the difference in points with its interval."""
    found = comparison.difference
    return (
        f"at {tables.percent(comparison.sparsity)}: {fair.name(comparison.one)}"
        f" {100 * comparison.one_accuracy:.1f} %, {fair.name(comparison.other)}"
        f" {100 * comparison.other_accuracy:.1f} %; {tables.points(found.estimate)} points"
        f" ({tables.points(found.low)} to {tables.points(found.high)})"
    )


def basis(comparisons: Sequence[Comparison], confidence: float) -> str:
    """A sentence about the seeds, images and corrected confidence of the intervals."""
    found, many = comparisons[0].difference, len(comparisons)
    over = f"{tables.times(found.seeds, 'seed')} × {tables.count(found.images)} test images, paired"
    if found.seeds == 1:
        over = (
            f"one seed, so over its {tables.count(found.images)} test images alone: another"
            " training may differ by more"
        )
    corrected = f", each {100 * found.confidence:.4g} % as there are {many}" if many > 1 else ""
    return f"intervals of {100 * confidence:g} % in all{corrected}; {over}"


def places(comparisons: Sequence[Comparison]) -> str:
    """The sparsities of these comparisons, and the rivals."""
    grouped: dict[str, list[float]] = {}
    for one in comparisons:
        grouped.setdefault(one.other, []).append(one.sparsity)
    listed = [
        f"{', '.join(map(tables.percent, points))}" + f" (against {fair.name(other)})"
        for other, points in grouped.items()
    ]
    return "; ".join(listed)


def omissions(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    grouped: dict[str, list[float]] = {}
    for one in left_out:
        grouped.setdefault(one.left_out, []).append(one.sparsity)
    return tuple(
        f"left out at {', '.join(map(tables.percent, sorted(set(points))))}: {reason}"
        for reason, points in grouped.items()
    )


def shown(comparisons: Sequence[Comparison], sparsity: float) -> tuple[str, ...]:
    """A sentence for each contrast: the comparison nearest to the report's sparsity."""
    nearest: dict[tuple[str, str], Comparison] = {}
    for one in comparisons:
        best = nearest.setdefault((one.one, one.other), one)
        if abs(one.sparsity - sparsity) < abs(best.sparsity - sparsity):
            nearest[one.one, one.other] = one
    return tuple(map(sentence, nearest.values()))


def averaged(found: Interval, many: int, what: str = "comparisons") -> str:
    """The mean difference as text. what: the plural noun of what it is averaged over."""
    over = f" on average over {many}\N{NO-BREAK SPACE}{what}" if many > 1 else ""
    return (
        f"{tables.points(found.estimate)} points ({tables.points(found.low)} to"
        f" {tables.points(found.high)}){over}"
    )


def _sign(found: Interval) -> int:
    """1 if the whole interval lies above zero, -1 if below, else 0."""
    return (found.low > 0) - (found.high < 0)


@dataclass(frozen=True)
class Without:
    """The mean difference without one sparsity."""

    sparsity: float
    average: Interval


def _carrying(
    pairs: Sequence[tuple[Arm, Arm]], average: Interval, confidence: float
) -> Without | None:
    """The sparsity that carries the mean: without it, the mean is less than half as large and no
    longer decided. Of several, the one that leaves the smallest mean; None if there is none.
    """
    targets = sorted({one.target for one, _ in pairs})
    if len(targets) < LEAST_TO_LEAVE_OUT or not _sign(average):
        return None
    means = [
        Without(
            target,
            fair.on_average([pair for pair in pairs if pair[0].target != target], confidence),
        )
        for target in targets
    ]
    least = min(means, key=lambda one: _sign(average) * one.average.estimate)
    halved = _sign(average) * least.average.estimate < abs(average.estimate) / 2
    return least if halved and _sign(least.average) != _sign(average) else None


def _why(average: Interval, comparisons: Sequence[Comparison], carrying: Without | None) -> str:
    better = [one for one in comparisons if one.outcome == "better"]
    worse = [one for one in comparisons if one.outcome == "worse"]
    rivals = {one.other for one in comparisons}
    text = averaged(average, len(comparisons), "sparsities" if len(rivals) == 1 else "comparisons")
    if carrying:
        text += (
            f", carried by {tables.percent(carrying.sparsity)} alone: without it"
            f" {averaged(carrying.average, 1)}"
        )
    if worse:
        return f"{text}; taken singly, worse at {places(worse)}"
    if better:
        return f"{text}; taken singly, better at {places(better)}"
    return text


def numbers(
    comparisons: Sequence[Comparison], left_out: Sequence[LeftOut]
) -> tuple[dict[str, Any], ...]:
    return (*(one.numbers() for one in comparisons), *(vars(one) for one in left_out))


def nothing(
    hypothesis: Hypothesis, left_out: Sequence[LeftOut], absent: tuple[str, ...]
) -> Finding:
    """The finding that nothing was measured, with the reason."""
    why = "; ".join((*omissions(left_out), *absent)) or "the methods share no sparsity above 0"
    return hypothesis.found(NOT_MEASURED, why, (), numbers((), left_out))


def not_run(methods: Sequence[str], arms: Arms) -> tuple[str, ...]:
    """A sentence about the methods that have no rows."""
    present = {method for method, _ in arms}
    absent = [fair.name(method) for method in dict.fromkeys(methods) if method not in present]
    return (f"not run: {'; '.join(absent)}",) if absent else ()


def judged(claim: Claim, evidence: Evidence, arms: Arms) -> Finding:
    """Judges a claim by the rule JUDGED."""
    hypothesis = claim.hypothesis
    unlearned = fair.unlearned(evidence, arms)
    if unlearned:
        return hypothesis.found(NOT_MEASURED, unlearned)

    def why_not(one: Arm, other: Arm) -> str:
        if claim.equal_epochs and one.epochs != other.epochs:
            return f"not the same budget: {one.epochs} and {other.epochs} epochs"
        if fair.at_chance(evidence, one) and fair.at_chance(evidence, other):
            return "both are no better than chance"
        return ""

    pairs, left_out = sifted(_pairs(claim, arms), why_not)
    absent = not_run([name for one, rivals in claim.contrasts for name in (one, *rivals)], arms)
    if not pairs:
        return nothing(hypothesis, left_out, absent)
    comparisons = fair.compare(pairs, evidence.confidence)
    average = fair.on_average(pairs, evidence.confidence)
    carrying = _carrying(pairs, average, evidence.confidence)
    decided = 0 if carrying else _sign(average)
    worse = decided < 0 or any(one.outcome == "worse" for one in comparisons)
    here = (
        *shown(comparisons, evidence.sparsity),
        basis(comparisons, evidence.confidence),
        *claim.notes(arms, comparisons),
        *omissions(left_out),
        *absent,
    )
    return hypothesis.found(
        weigh(decided > 0, worse),
        _why(average, comparisons, carrying),
        here,
        numbers(comparisons, left_out),
        average,
    )
