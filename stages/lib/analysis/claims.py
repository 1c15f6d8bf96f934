"""Judges the claim that one way of pruning keeps more accuracy than another.

One interval decides (analysis/statistics.py): that of the paired difference, averaged over every
sparsity above 0 that the methods share. No single sparsity may contradict it: the intervals of the
single sparsities are at a confidence corrected for their number (Bonferroni), so that all hold at
once. And no single sparsity may carry it: if there are three or more, the mean without each is
computed too. Pairs that cannot be compared fairly are left out, with the reason.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stages.lib.analysis import evidence as fair
from stages.lib.analysis import tables
from stages.lib.analysis.evidence import OUTCOMES, Arm, Arms, Comparison, Evidence
from stages.lib.analysis.statistics import Interval
from stages.lib.analysis.verdicts import (
    NOT_MEASURED,
    ONE_SEED,
    REPRODUCED,
    UNDECIDED,
    Finding,
    Hypothesis,
    finding,
    of_one_seed,
    weigh,
)
from stages.lib.core import methods

AT_CHANCE = "both are no better than chance"
LEAST_TO_LEAVE_OUT = 3
Pair = tuple[Arm, Arm]


@dataclass(frozen=True)
class Claim:
    """The claim that a method is better than others at equal sparsity.

    id, title, course: as of a Hypothesis.
    contrasts: a method and its rivals. At each sparsity, it is compared with the rival that has the
        best validation accuracy.
    why_not: why a pair says nothing about the claim; empty if it does.
    each: whether the method must be ahead, and better than chance, in every pair. If not, two
        networks that are no better than chance are not compared.
    notes: makes more sentences from the arms and the comparisons.
    """

    id: str
    title: str
    contrasts: tuple[tuple[str, ...], ...]
    course: str = ""
    why_not: Callable[[Arm, Arm, Evidence, Arms], str] = lambda *_: ""
    each: bool = False
    notes: Callable[[Arms, Sequence[Comparison]], Iterable[str]] = lambda *_: ()

    @property
    def hypothesis(self) -> Hypothesis:
        """The claim, with the rule by which it is judged."""
        told = "; ".join(
            f"{one} against {'the best (on validation) of ' * (len(rivals) > 1)}{', '.join(rivals)}"
            for one, *rivals in (map(_title, names) for names in self.contrasts)
        )
        rule = (
            f"{told}; at equal sparsity of the whole network, the mean of the differences at all"
            " sparsities above 0. Reproduced if its whole interval lies above zero, and that of no"
            " single sparsity below; contradicted if it lies below, or that of a single one does;"
            " else undecided. One of three or more sparsities must not carry the mean: without it,"
            " it would be less than half as large, and its interval reach zero."
        )
        if self.each:
            rule += " To be reproduced, each must be ahead, and better than chance."
        return Hypothesis(self.id, self.title, self.course, f"{rule} {ONE_SEED}")


def _title(method: str) -> str:
    return methods.METHODS[method].title


def _pairs(claim: Claim, arms: Arms) -> list[Pair]:
    """Each method with its strongest rival or, if a rival cannot be compared, with that one."""
    pairs, dense = [], {method.name for method in methods.of_family(methods.DENSE)}
    for method, *rivals in claim.contrasts:
        for target in sorted({point for name, point in arms if name == method and point > 0}):
            against = [arms.get((name, 0.0 if name in dense else target)) for name in rivals]
            if None not in against:
                strongest = max(against, key=lambda arm: (bool(arm.problem), arm.validation))
                pairs.append((arms[method, target], strongest))
    return pairs


def _joined(points: Iterable[float]) -> str:
    return ", ".join(map(tables.percent, points))


def _grouped(named: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for name, point in named:
        groups.setdefault(name, []).append(point)
    return groups


def places(comparisons: Sequence[Comparison]) -> str:
    """The sparsities of these comparisons, and the rivals."""
    groups = _grouped((one.other.name, one.sparsity) for one in comparisons)
    return "; ".join(f"{_joined(points)} (against {name})" for name, points in groups.items())


def _interval(difference: Interval) -> str:
    low, high = tables.points(difference.low), tables.points(difference.high)
    return f"{tables.points(difference.estimate)} points ({low} to {high})"


def _sentence(comparison: Comparison) -> str:
    """A sentence with both accuracies in percent and the difference in points with its interval."""
    one, other = (
        f"{arm.name} {100 * arm.accuracy:.1f} %" for arm in (comparison.one, comparison.other)
    )
    difference = _interval(comparison.difference)
    return f"at {tables.percent(comparison.sparsity)}: {one}, {other}; {difference}"


def _shown(comparisons: Sequence[Comparison], sparsity: float) -> list[str]:
    """A sentence for each contrast: the comparison nearest to the report's sparsity."""
    nearest: dict[tuple[str, str], Comparison] = {}
    for one in sorted(comparisons, key=lambda one: abs(one.sparsity - sparsity)):
        nearest.setdefault((one.one.method, one.other.method), one)
    return [_sentence(one) for one in comparisons if one in nearest.values()]


def _basis(comparisons: Sequence[Comparison], confidence: float) -> str:
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


class Without(NamedTuple):
    """The mean difference without one sparsity."""

    sparsity: float
    average: Interval


def _carrying(pairs: Sequence[Pair], average: Interval, confidence: float) -> Without | None:
    """The sparsity that carries the mean: without it, the mean is less than half as large and no
    longer decided. Of several, the one that leaves the smallest mean; None if there is none.
    """
    targets = sorted({one.target for one, _ in pairs})
    if len(targets) < LEAST_TO_LEAVE_OUT or not average.sign:
        return None
    rest = {target: [pair for pair in pairs if pair[0].target != target] for target in targets}
    means = [Without(target, fair.on_average(some, confidence)) for target, some in rest.items()]
    least = min(means, key=lambda one: average.sign * one.average.estimate)
    halved = average.sign * least.average.estimate < abs(average.estimate) / 2
    return least if halved and least.average.sign != average.sign else None


def _why(average: Interval, comparisons: Sequence[Comparison], carrying: Without | None) -> str:
    text, many = _interval(average), len(comparisons)
    if many > 1:
        rivals = {one.other.method for one in comparisons}
        what = "sparsities" if len(rivals) == 1 else "comparisons"
        text += f" on average over {many}\N{NO-BREAK SPACE}{what}"
    if carrying:
        text += (
            f", carried by {tables.percent(carrying.sparsity)} alone: without it"
            f" {_interval(carrying.average)}"
        )
    for sign in (-1, 1):
        singly = [one for one in comparisons if one.difference.sign == sign]
        if singly:
            return f"{text}; taken singly, {OUTCOMES[sign]} at {places(singly)}"
    return text


def judged(claim: Claim, evidence: Evidence, arms: Arms) -> Finding:
    """Judges a claim by the rule of its hypothesis."""
    unlearned = fair.unlearned(evidence, arms)
    if unlearned:
        return finding(claim.hypothesis, NOT_MEASURED, unlearned)
    candidates = _pairs(claim, arms)
    reasons = [
        fair.unfair(*pair)
        or claim.why_not(*pair, evidence, arms)
        or ("" if claim.each or not all(arm.at_chance for arm in pair) else AT_CHANCE)
        for pair in candidates
    ]
    pairs = [pair for pair, reason in zip(candidates, reasons, strict=True) if not reason]
    left_out = [
        {"one": one.method, "other": other.method, "sparsity": one.target, "left_out": reason}
        for (one, other), reason in zip(candidates, reasons, strict=True)
        if reason
    ]
    omitted = _grouped((line["left_out"], line["sparsity"]) for line in left_out)
    present = {method for method, _ in arms}
    asked = dict.fromkeys(name for names in claim.contrasts for name in names)
    absent = [_title(name) for name in asked if name not in present]
    missing = [
        *(f"left out at {_joined(sorted(set(at)))}: {reason}" for reason, at in omitted.items()),
        *([f"not run: {'; '.join(absent)}"] if absent else []),
    ]
    if not pairs:
        why = "; ".join(missing) or "the methods share no sparsity above 0"
        return finding(claim.hypothesis, NOT_MEASURED, why, (), tuple(left_out))
    comparisons = fair.compare(pairs, evidence.confidence)
    average = fair.on_average(pairs, evidence.confidence)
    carrying = _carrying(pairs, average, evidence.confidence)
    decided = 0 if carrying else average.sign
    worse = decided < 0 or any(one.difference.sign < 0 for one in comparisons)
    verdict, why = weigh(decided > 0, worse), _why(average, comparisons, carrying)
    behind = [one for one in comparisons if one.difference.estimate <= 0 or one.one.at_chance]
    if claim.each and behind and verdict == REPRODUCED:
        verdict, why = UNDECIDED, f"{why}, but not at {places(behind)}"
    if average.seeds == 1:
        verdict, why = of_one_seed(verdict, why)
    here = (
        *_shown(comparisons, evidence.sparsity),
        _basis(comparisons, evidence.confidence),
        *claim.notes(arms, comparisons),
        *missing,
    )
    numbers = (*(one.numbers() for one in comparisons), *left_out)
    return finding(claim.hypothesis, verdict, why, here, numbers, average)
