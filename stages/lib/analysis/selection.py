"""Which file to deploy: the smallest, or the fastest, of those that meet the budgets.

Chosen on validation accuracies, sizes and latencies; test accuracies choose nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

from stages.lib.analysis import tables
from stages.lib.analysis.timings import Timing
from stages.lib.core import paths
from stages.lib.core.records import ALL_LAYERS, Row

SMALLEST, FASTEST = "smallest", "fastest"
BASELINE = "baseline"
# Accuracies are rounded to six digits: a difference of two means may be off by as much.
ROUNDING = 1e-6
# How many candidates are named where nothing meets the budgets.
NEAREST = 3
# The budgets, by the names of their parameters.
DROP, BYTES, LATENCY = "max_accuracy_drop", "max_bytes", "max_latency_ms"


@dataclass(frozen=True)
class Budgets:
    """max_accuracy_drop: share of validation accuracy given up at most; max_bytes of the file and
    max_latency_ms of a batch of one image: None where there is no such budget.
    """

    max_accuracy_drop: float
    max_bytes: int | None = None
    max_latency_ms: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """The budgets that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Candidate:
    """A network at one setting, its file kept for every seed.

    name: unique in a run; stage; rows: one per seed, in the order of the seeds; validation_accuracy
    and mean_bytes: means over seeds; drop: by how much that accuracy is below the dense network's;
    timings: one per seed, empty where it was not timed for each of them.
    """

    name: str
    stage: str
    rows: tuple[Row, ...]
    validation_accuracy: float
    drop: float
    mean_bytes: float
    timings: tuple[Timing, ...] = ()

    @property
    def most_bytes(self) -> int:
        """Of the largest seed's file: whichever is shipped is within a budget that this meets."""
        return max(row.bytes_on_disk for row in self.rows)

    @property
    def latency_ms(self) -> float | None:
        """Median over seeds, None where it was not timed."""
        return median(one.latency_ms for one in self.timings) if self.timings else None

    @property
    def relative_latency(self) -> float | None:
        """Mean over seeds of the latency relative to the dense float32 network in eager torch."""
        return fmean(one.relative for one in self.timings) if self.timings else None

    @property
    def relative_spread(self) -> float:
        """Mean over seeds of that latency's interquartile range; 0 where it is not known."""
        return fmean((one.iqr_ms or 0) / one.latency_ms * one.relative for one in self.timings)

    def is_faster(self, other: "Candidate") -> bool:
        """Whether two that were timed are further apart than half of both spreads together."""
        apart = other.relative_latency - self.relative_latency
        return apart > (self.relative_spread + other.relative_spread) / 2

    @property
    def shipped(self) -> Row:
        """The row of the seed with the best validation accuracy, the first of equals."""
        return max(self.rows, key=lambda row: row.validation_accuracy)

    @property
    def words(self) -> str:
        """The network as people call it."""
        row = self.rows[0]
        return tables.network(row.method, row.weight_bits, row.target_sparsity, row.times_smaller)

    def spent(self, budget: str) -> float | None:
        """What it takes of a budget, in that budget's unit; None where that is not known."""
        return {DROP: self.drop, BYTES: self.most_bytes, LATENCY: self.latency_ms}[budget]

    def meets(self, budget: str, limit: float) -> bool:
        """Whether it is known to be within a budget."""
        spent = self.spent(budget)
        return spent is not None and spent <= limit + (ROUNDING if budget == DROP else 0)


@dataclass(frozen=True)
class Choice:
    """candidate: None where nothing meets the budgets; reason: a sentence; nearest: then, the
    candidates that miss them least.
    """

    candidate: Candidate | None
    reason: str
    nearest: tuple[Candidate, ...] = ()


def _name(row: Row) -> str:
    return paths.prediction_name(
        row.method, row.target_sparsity, row.weight_bits, row.times_smaller
    )


def collect(
    rows: Mapping[str, Sequence[Row]], timings: Mapping[str, Timing], seeds: Sequence[int]
) -> list[Candidate]:
    """The whole networks whose files are kept for every seed, in the order of the rows.

    rows: of all seeds, by stage, the dense network's among them; timings: by file. ValueError where
    the dense network is not there for every seed.
    """
    settings: dict[str, list[tuple[str, Row]]] = {}
    for stage, found in rows.items():
        for row in found:
            if row.model and row.layer == ALL_LAYERS:
                settings.setdefault(_name(row), []).append((stage, row))
    whole: dict[str, tuple[str, tuple[Row, ...]]] = {}
    for name, found in settings.items():
        of_seed = {row.seed: row for _, row in found}
        if len(found) == len(seeds) and set(of_seed) == set(seeds):
            whole[name] = found[0][0], tuple(of_seed[seed] for seed in seeds)
    dense = next((kept for _, kept in whole.values() if kept[0].method == BASELINE), None)
    if dense is None:
        raise ValueError("no dense network of every seed to compare with")
    accuracy = fmean(row.validation_accuracy for row in dense)
    candidates = []
    for name, (stage, kept) in whole.items():
        mine = fmean(row.validation_accuracy for row in kept)
        timed = all(row.model in timings for row in kept)
        candidates.append(
            Candidate(
                name=name,
                stage=stage,
                rows=kept,
                validation_accuracy=mine,
                drop=accuracy - mine,
                mean_bytes=fmean(row.bytes_on_disk for row in kept),
                timings=tuple(timings[row.model] for row in kept) if timed else (),
            )
        )
    return candidates


def overshoot(
    candidate: Candidate, budgets: Budgets, validation_images: int
) -> dict[str, float | None]:
    """By how much it exceeds each budget that it misses, as a share of that budget (0.5: half as
    much again); None where what it takes is not known.

    A budget of no accuracy at all counts as one of `validation_images`.
    """
    missed = {}
    for budget, limit in budgets.given.items():
        if not candidate.meets(budget, limit):
            spent = candidate.spent(budget)
            unit = max(limit, 1 / validation_images) if budget == DROP else limit
            missed[budget] = None if spent is None else (spent - limit) / unit
    return missed


def _distance(missed: Mapping[str, float | None]) -> tuple[bool, float]:
    known = [share for share in missed.values() if share is not None]
    return len(known) < len(missed), max(known, default=0.0)


def _shown(budget: str, value: float) -> str:
    number = f"{value:,.0f}" if budget == BYTES else f"{value:.4g}"
    return f"package.{budget} ({number})"


def _least(budget: str, value: float) -> str:
    return {
        DROP: f"a drop of {value:.4g}", BYTES: f"{value:,.0f} bytes", LATENCY: f"{value:.4g} ms"
    }[budget]  # fmt: skip


def _why_none(candidates: Sequence[Candidate], given: Mapping[str, float], what: str) -> str:
    """The fewest budgets that nothing meets together, in a sentence."""
    for count in range(1, len(given) + 1):
        for some in combinations(given, count):
            if any(all(one.meets(name, given[name]) for name in some) for one in candidates):
                continue
            if count > 1:
                named = " and ".join(_shown(name, given[name]) for name in some)
                return f"no {what} meets {named} together"
            (name,) = some
            known = [one.spent(name) for one in candidates if one.spent(name) is not None]
            least = f"the least is {_least(name, min(known))}" if known else "none was timed"
            return f"no {what} meets {_shown(name, given[name])}: {least}"
    raise AssertionError("something meets every budget")


def choose(
    candidates: Sequence[Candidate], role: str, budgets: Budgets, validation_images: int
) -> Choice:
    """The candidate that meets all budgets and has the fewest mean bytes (role "smallest"), or,
    among those that were timed, the highest validation accuracy of those than which the one of
    least relative latency is not faster ("fastest"). Of equals the one with the higher validation
    accuracy, then the first.
    """
    if role == SMALLEST:
        pool, what, known = list(candidates), "file", "kept"
        costs = {one.name: one.mean_bytes for one in pool}
    else:
        pool = [one for one in candidates if one.timings]
        what, known = "network that was timed", "timed"
        costs = {one.name: one.relative_latency for one in pool}
    given = budgets.given
    good = [one for one in pool if all(one.meets(name, given[name]) for name in given)]
    if good:
        best = min(good, key=lambda one: (costs[one.name], -one.validation_accuracy))
        alike = [one for one in good if role == FASTEST and not best.is_faster(one)]
        chosen = max(alike, key=lambda one: one.validation_accuracy, default=best)
        which = f"the {role}" if chosen is best else f"the most accurate of the {len(alike)} {role}"
        return Choice(
            chosen, f"{which} of {len(good)} within the budgets; {len(pool)} were {known}"
        )
    if not pool:
        return Choice(None, "no network was timed with a batch of one image for every seed")
    nearest = sorted(
        pool,
        key=lambda one: (
            *_distance(overshoot(one, budgets, validation_images)),
            costs[one.name],
            -one.validation_accuracy,
        ),
    )
    return Choice(None, _why_none(pool, given, what), tuple(nearest[:NEAREST]))
