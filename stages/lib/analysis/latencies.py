"""The latency of each network on the CPU, in every engine that executes its file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.lib.core import engines, records

CPU = "cpu"
MEASURED = ["latency_ms", "latency_iqr_ms"]
# A network in an engine: method, target sparsity, bits per weight, engine.
Timed = tuple[str, float, int, str]
KEYS = ["method", "target_sparsity", "weight_bits", "engine"]


@dataclass(frozen=True)
class Latency:
    """The latency of one call.

    milliseconds: the median over seeds of their medians.
    iqr_ms: the median over seeds of their IQRs; None if one was not measured.
    """

    milliseconds: float
    iqr_ms: float | None
    engine: str
    batch_size: int
    threads: int

    @property
    def ranked(self) -> bool:
        """Whether its spread is small enough for a ranking."""
        return self.iqr_ms is not None and self.iqr_ms <= records.MOST_IQR * self.milliseconds

    def is_faster(self, other: "Latency") -> bool:
        """Whether it is lower by more than half of both IQRs together."""
        apart = other.milliseconds - self.milliseconds
        return self.ranked and other.ranked and apart > (self.iqr_ms + other.iqr_ms) / 2


def of_line(line: Any, engine: str) -> Latency:
    """The latency in a table's line."""
    iqr = None if pd.isna(line.latency_iqr_ms) else float(line.latency_iqr_ms)
    return Latency(float(line.latency_ms), iqr, engine, int(line.batch_size), int(line.threads))


def told(milliseconds: float) -> float:
    """A latency as reports show it, with three significant digits. Ratios are of these, so that a
    reader who divides two of them gets the third.
    """
    return float(f"{milliseconds:.3g}")


def _of_seeds(lines: pd.DataFrame) -> Latency:
    line = lines.iloc[0].copy()
    line[MEASURED] = lines[MEASURED].median(skipna=False)
    line.latency_ms = told(line.latency_ms)
    return of_line(line, line.engine)


def by_network(table: pd.DataFrame, seeds: Sequence[int], batch_size: int) -> dict[Timed, Latency]:
    """The latencies of the networks that were timed for every seed, in each engine of their files.

    table: records.LATENCY of all seeds.
    batch_size: images per call.
    """
    here = table[(table.device == CPU) & (table.batch_size == batch_size)]
    here = here.dropna(subset=["latency_ms", "model"])
    executes = [
        line.engine in {engine.name for engine in engines.of_file(line.model)}
        for line in here.itertuples()
    ]
    groups = here.loc[executes].groupby(KEYS, sort=False)
    return {key: _of_seeds(lines) for key, lines in groups if set(lines.seed) == set(seeds)}
