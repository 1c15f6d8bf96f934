"""Judges the claim that one way of pruning keeps more accuracy than another.

One interval decides (analysis/statistics.py): that of the paired difference, averaged over every
sparsity above 0 that the methods share. No single sparsity may contradict it: the intervals of the
single sparsities are at a confidence corrected for their number (Bonferroni), so that all hold at
once. And no single sparsity may carry it: if there are three or more, the mean without each is
computed too. Pairs that cannot be compared fairly are left out, with the reason.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from stages.lib.analysis import evidence as fair
from stages.lib.analysis import tables
from stages.lib.analysis.evidence import OUTCOMES, Arm, Arms, Comparison, Evidence
from stages.lib.analysis.statistics import Interval
from stages.lib.analysis.verdicts import (
    ONE_SEED,
    REPRODUCED,
    UNDECIDED,
    Finding,
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

    id, title, course: as of a Finding.
    contrasts: a method and its rivals. At each sparsity, it is compared with the rival that has the
        best validation accuracy.
    why_not: why a pair says nothing about the claim; empty if it does.
    each: whether the method must be ahead, and better than chance, in every pair. If not, two
        networks that are no better than chance are not compared.
    """

    id: str
    title: str
    contrasts: tuple[tuple[str, ...], ...]
    course: str = ""
    why_not: Callable[[Arm, Arm, Evidence, Arms], str] = lambda *_: ""
    each: bool = False

    @property
    def hypothesis(self) -> Finding:
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
        return Finding(self.id, self.title, self.course, f"{rule} {ONE_SEED}")


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


def _points(named: Iterable[tuple[str, float]]) -> dict[str, str]:
    """The sparsities of each name, as a list for people."""
    groups: dict[str, set[float]] = {}
    for name, point in named:
        groups.setdefault(name, set()).add(point)
    return {name: ", ".join(map(tables.percent, sorted(points))) for name, points in groups.items()}


def places(comparisons: Sequence[Comparison]) -> str:
    """The sparsities of these comparisons, and the rivals."""
    groups = _points((one.other.name, one.sparsity) for one in comparisons)
    return "; ".join(f"{points} (against {name})" for name, points in groups.items())


def _sentences(comparisons: Sequence[Comparison], evidence: Evidence) -> list[str]:
    """A sentence for each contrast, about the comparison nearest to the report's sparsity, and one
    about the seeds, images and corrected confidence of the intervals.
    """
    nearest: dict[tuple[str, str], Comparison] = {}
    for one in sorted(comparisons, key=lambda one: abs(one.sparsity - evidence.sparsity)):
        nearest.setdefault((one.one.method, one.other.method), one)
    told = [
        f"at {tables.percent(one.sparsity)}: {one.one.told}, {one.other.told};"
        f" {tables.interval(one.difference)}"
        for one in comparisons
        if one in nearest.values()
    ]
    first, many = comparisons[0].difference, len(comparisons)
    over = f"{first.seeds} seeds × {tables.count(first.images)} test images, paired"
    if first.seeds == 1:
        over = f"over {tables.count(first.images)} test images alone, not over seeds"
    corrected = f", each {100 * first.confidence:.4g} % as there are {many}" if many > 1 else ""
    return [*told, f"intervals of {100 * evidence.confidence:g} % in all{corrected}; {over}"]


def _carrying(
    pairs: Sequence[Pair], average: Interval, confidence: float
) -> tuple[float, Interval] | None:
    """The sparsity that carries the mean, and the mean without it, which is less than half as large
    and no longer decided. Of several, the one that leaves the smallest mean; None if there is none.
    """
    targets = {one.target for one, _ in pairs}
    if len(targets) < LEAST_TO_LEAVE_OUT or not average.sign:
        return None
    means = {
        target: fair.on_average([pair for pair in pairs if pair[0].target != target], confidence)
        for target in sorted(targets)
    }
    target, least = min(means.items(), key=lambda mean: average.sign * mean[1].estimate)
    halved = average.sign * least.estimate < abs(average.estimate) / 2
    return (target, least) if halved and least.sign != average.sign else None


def _weighed(
    claim: Claim, pairs: Sequence[Pair], comparisons: Sequence[Comparison], confidence: float
) -> tuple[str, str, Interval]:
    """The verdict, the reason for it, and the mean difference."""
    average = fair.on_average(pairs, confidence)
    why, many = tables.interval(average), len(comparisons)
    if many > 1:
        why += f" on average over {many}\N{NO-BREAK SPACE}comparisons"
    carrying, decided = _carrying(pairs, average, confidence), average.sign
    if carrying:
        decided, (target, rest) = 0, carrying
        why += f", carried by {tables.percent(target)} alone: without it {tables.interval(rest)}"
    signs = [one.difference.sign for one in comparisons]
    if any(signs):
        sign = -1 if -1 in signs else 1
        some = [one for one in comparisons if one.difference.sign == sign]
        why += f"; taken singly, {OUTCOMES[sign]} at {places(some)}"
    verdict = weigh(decided > 0, decided < 0 or -1 in signs)
    behind = [one for one in comparisons if one.difference.estimate <= 0 or one.one.at_chance]
    if claim.each and behind and verdict == REPRODUCED:
        verdict, why = UNDECIDED, f"{why}, but not at {places(behind)}"
    if average.seeds == 1:
        verdict, why = of_one_seed(verdict, why)
    return verdict, why, average


def judged(claim: Claim, evidence: Evidence, arms: Arms) -> Finding:
    """Judges a claim by the rule of its hypothesis."""
    unlearned = fair.unlearned(evidence, arms)
    if unlearned:
        return replace(claim.hypothesis, why=unlearned)
    pairs, left_out = [], []
    for one, other in _pairs(claim, arms):
        reason = fair.unfair(one, other) or claim.why_not(one, other, evidence, arms)
        if not (reason or claim.each) and one.at_chance and other.at_chance:
            reason = AT_CHANCE
        if reason:
            numbers = {"one": one.method, "other": other.method, "sparsity": one.target}
            left_out.append(numbers | {"left_out": reason})
        else:
            pairs.append((one, other))
    omitted = _points((line["left_out"], line["sparsity"]) for line in left_out)
    missing = [f"left out at {points}: {reason}" for reason, points in omitted.items()]
    present = {method for method, _ in arms}
    asked = dict.fromkeys(name for names in claim.contrasts for name in names)
    absent = [_title(name) for name in asked if name not in present]
    if absent:
        missing.append(f"not run: {'; '.join(absent)}")
    if not pairs:
        why = "; ".join(missing) or "the methods share no sparsity above 0"
        return replace(claim.hypothesis, why=why, evidence=tuple(left_out))
    comparisons = fair.compare(pairs, evidence.confidence)
    verdict, why, average = _weighed(claim, pairs, comparisons, evidence.confidence)
    told = (*_sentences(comparisons, evidence), *missing)
    return replace(
        claim.hypothesis,
        verdict=verdict,
        why=why,
        here=told,
        evidence=(*(one.numbers() for one in comparisons), *left_out),
        average=average,
    )
