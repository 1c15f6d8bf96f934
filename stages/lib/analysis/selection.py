"""Selects files: the smallest, or the fastest, of those that are accurate enough.

The selection uses validation accuracies, sizes and latencies, never test accuracies. Differences
within the noise count as equal; then the other of size and latency decides, then the order of the
methods. A higher validation accuracy within the budget decides nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from statistics import fmean
from typing import NamedTuple

from stages.lib.analysis import statistics, tables
from stages.lib.analysis.latencies import Latency, Timed
from stages.lib.analysis.predictions import Correct, Key
from stages.lib.analysis.statistics import Interval
from stages.lib.core import engines
from stages.lib.core.methods import METHODS, exported_name
from stages.lib.core.records import ALL_LAYERS, Row

SMALLEST, FASTEST = "smallest", "fastest"
BASELINE = "baseline"
# The accuracy budgets of the report: losses of validation accuracy (0.01: one percentage point).
LOSSES = (0.0, 0.005, 0.01, 0.02)
# Files whose sizes differ by a smaller share count as equally large: a header is not a saving.
SAME_SIZE = 0.01
# Accuracies are rounded to six digits, so a difference of two means may be off by this much.
ROUNDING = 1e-6
# How many candidates are named if nothing meets the budgets, and if several are equal.
NEAREST, NAMED = 3, 3
# What a file may cost, by the names of the params: the loss of validation accuracy (a share), the
# bytes of the file, the latency of one image. A budget that is not set is missing.
DROP, BYTES, LATENCY = "max_accuracy_drop", "max_bytes", "max_latency_ms"
Budgets = Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """A network whose file is kept for every seed, in an engine.

    rows: one per seed, in the order of the seeds. Their accuracies are those in the first engine
        that executes the file.
    loss: of validation accuracy in this engine against the baseline, paired by image and seed.
    test: its accuracy on the test images in this engine.
    latency: of one image in this engine; None if it was not timed for every seed.
    engine: its name; empty if none executes the file as it is.
    """

    rows: tuple[Row, ...]
    loss: Interval
    test: Interval
    latency: Latency | None = None
    engine: str = ""

    @property
    def name(self) -> str:
        """The network's name, unique in a run."""
        return key_of(self.rows[0]).name

    @property
    def words(self) -> str:
        """The network's name for people."""
        row = self.rows[0]
        return tables.network(row.method, row.weight_bits, row.target_sparsity, row.times_smaller)

    @property
    def masked(self) -> bool:
        """Whether it is only masked, so that its zeros save no time."""
        return METHODS[self.rows[0].method].masked

    @property
    def mean_bytes(self) -> float:
        """The mean size of its file over seeds."""
        return fmean(row.bytes_on_disk for row in self.rows)

    @property
    def ranked(self) -> bool:
        """Whether its latency is measured well enough for a ranking."""
        return self.latency is not None and self.latency.ranked

    @property
    def shipped(self) -> Row:
        """The row of the seed whose file is deployed: the best validation accuracy, then the
        first.
        """
        return max(self.rows, key=lambda row: row.validation_accuracy)

    def spent(self, budget: str) -> float:
        """How much of a budget it uses, in the budget's unit; infinite if unknown. Bytes are those
        of the largest seed's file, so that the file of any seed meets the budget.
        """
        if budget == LATENCY:
            return self.latency.milliseconds if self.ranked else math.inf
        if budget == BYTES:
            return max(row.bytes_on_disk for row in self.rows)
        return self.loss.estimate

    def meets(self, budget: str, limit: float) -> bool:
        """Whether it surely meets a budget."""
        return self.spent(budget) <= limit + (ROUNDING if budget == DROP else 0)


class Choice(NamedTuple):
    """The choice for a role.

    candidate: None if nothing meets the budgets.
    reason: a sentence.
    nearest: if nothing meets the budgets, the candidates that miss them least.
    """

    candidate: Candidate | None
    reason: str
    nearest: tuple[Candidate, ...] = ()


class Answer(NamedTuple):
    """The best networks for one or more accuracy budgets.

    losses: budgets that the validation images cannot tell apart, ascending.
    resolution: the difference of validation accuracy that the images can show: the half-width of
        the interval of the loss, for the chosen network with the wider interval.
    choices: by role, within the largest of the budgets.
    """

    losses: tuple[float, ...]
    resolution: float
    choices: dict[str, Choice]


def key_of(row: Row) -> Key:
    """The key of a row's network."""
    return Key(row.method, row.target_sparsity, row.weight_bits, row.times_smaller)


def executed(row: Row) -> dict[Key, str]:
    """For each engine that executes a row's file, the key of the predictions, and the engine's
    name; if there is none, the row's key and an empty name.
    """
    key, names = key_of(row), [engine.name for engine in engines.of_file(row.model)] or [""]
    return {key: names[0]} | {key._replace(engine=name): name for name in names[1:]}


def collect(
    rows: Sequence[Row],
    validation: Correct,
    test: Correct,
    latencies: Mapping[Timed, Latency],
    seeds: Sequence[int],
    confidence: float,
) -> list[Candidate]:
    """The candidates: all networks whose files are kept for every seed, in the order of METHODS. A
    network that was executed and timed in a further engine is one more candidate.

    rows: of all seeds, with the baseline's.
    validation, test: which network is right on which image, in which engine.
    latencies: of one image.
    confidence: of each interval.

    ValueError if the baseline is missing for a seed.
    """
    order = {name: place for place, name in enumerate(METHODS)}
    kept = sorted(
        (row for row in rows if row.model and row.layer == ALL_LAYERS),
        key=lambda row: (order[row.method], key_of(row), seeds.index(row.seed)),
    )
    networks = {key: tuple(found) for key, found in groupby(kept, key_of)}
    whole = {
        key: found
        for key, found in networks.items()
        if [row.seed for row in found] == sorted(seeds, key=seeds.index)
        and key in validation
        and key in test
    }
    baseline = next((key for key in whole if key.method == BASELINE), None)
    if baseline is None:
        raise ValueError("no baseline of every seed to compare with")
    return [
        Candidate(
            found,
            statistics.difference(validation[baseline], validation[key], confidence),
            statistics.accuracy(test[key], confidence),
            latencies.get((*key[:3], engine)),
            engine,
        )
        for found in whole.values()
        for key, engine in executed(found[0]).items()
        if key in validation and key in test
        if not key.engine or (*key[:3], engine) in latencies
    ]


def _least(pool: Sequence[Candidate], budget: str) -> list[Candidate]:
    """The cheapest candidates and their equals within the noise; all if no cost is known."""
    if budget == BYTES:
        least = min(one.mean_bytes for one in pool)
        return [one for one in pool if one.mean_bytes <= least * (1 + SAME_SIZE)]
    known = [one for one in pool if one.ranked and not one.masked]
    if not known:
        return list(pool)
    fastest = min(known, key=lambda one: one.latency.milliseconds)
    return [one for one in known if not fastest.latency.is_faster(one.latency)]


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first candidate of each network."""
    found: dict[str, Candidate] = {}
    for one in candidates:
        found.setdefault(one.name, one)
    return list(found.values())


def overshoot(candidate: Candidate, budgets: Budgets) -> dict[str, float]:
    """By how much a candidate exceeds each budget that it misses, as a share of the budget (0.5:
    half as much again); infinite if unknown. A loss of 0 counts as one of the validation images.
    """
    units = {budget: limit or 1 / candidate.loss.images for budget, limit in budgets.items()}
    return {
        budget: (candidate.spent(budget) - limit) / units[budget]
        for budget, limit in budgets.items()
        if not candidate.meets(budget, limit)
    }


def _why_none(candidates: Sequence[Candidate], budgets: Budgets, what: str) -> str:
    """A sentence that names the fewest budgets that no candidate meets together."""
    some = next(
        some
        for count in range(1, len(budgets) + 1)
        for some in combinations(budgets.items(), count)
        if not any(all(one.meets(*budget) for budget in some) for one in candidates)
    )
    missed = " and ".join(f"package.{name} ({limit:,})" for name, limit in some)
    return f"no {what} meets {missed}{' together' if len(some) > 1 else ''}"


def choose(candidates: Sequence[Candidate], role: str, budgets: Budgets) -> Choice:
    """The cheapest candidate that meets all budgets: by mean bytes for role SMALLEST, by latency
    for role FASTEST. Of those that are equal within the noise, the cheapest by the other of the
    two, then the first.
    """
    if role == SMALLEST:
        pool, what, costs = list(candidates), "file", (BYTES, LATENCY)
    else:
        # A masked network does the baseline's work: what it seems to save is noise.
        pool = [one for one in candidates if one.ranked and not one.masked]
        what, costs = "network with a latency to rank by", (LATENCY, BYTES)
    if not pool:
        return Choice(None, "no network has a latency of one image, for every seed, to rank by")
    good = [one for one in pool if all(one.meets(*budget) for budget in budgets.items())]
    if not good:
        # By the worst overshoot, then the next.
        nearest = sorted(pool, key=lambda one: sorted(overshoot(one, budgets).values())[::-1])
        reason = f"{_why_none(pool, budgets, what)}; the nearest is {nearest[0].words}"
        return Choice(None, reason, tuple(_distinct(nearest)[:NEAREST]))
    equal = _least(good, costs[0])
    chosen = _least(equal, costs[1])[0]
    others = [one.words for one in _distinct(equal) if one.name != chosen.name]
    reason = f"the {role} of {len(_distinct(good))} within the budgets"
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        alike = "small" if role == SMALLEST else "fast"
        reason += f"; as {alike} within the noise: {'; '.join(others[:NAMED])}{more}"
    return Choice(chosen, reason)


def unpruned(candidates: Sequence[Candidate]) -> Candidate | None:
    """The unpruned float32 network where it is fastest: what an engine brings without compression.
    None if it has no latency to rank by.
    """
    names = (BASELINE, exported_name(BASELINE, "float32"))
    known = [one for one in candidates if one.rows[0].method in names and one.ranked]
    return min(known, key=lambda one: one.latency.milliseconds, default=None)


def answers(candidates: Sequence[Candidate], asked: float) -> list[Answer]:
    """The cheapest candidates within each of LOSSES and within `asked`, the budget of the params.

    Neighbouring budgets that the images cannot tell apart become one answer, for the largest of
    them. `asked` is always the largest of its answer.
    """
    found: list[Answer] = []
    for loss in sorted({*LOSSES, asked}):
        choices = {role: choose(candidates, role, {DROP: loss}) for role in (SMALLEST, FASTEST)}
        chosen = [choice.candidate.loss for choice in choices.values() if choice.candidate]
        resolution = max((interval.high - interval.low) / 2 for interval in chosen)
        here = Answer((loss,), resolution, choices)
        last = found[-1] if found else None
        if last and last.losses[-1] != asked and loss - last.losses[-1] < last.resolution:
            here = Answer((*last.losses, loss), here.resolution, choices)
            found.pop()
        found.append(here)
    return found
