"""A run as reports/ keeps it in Git: its manifest and its tables, from their texts."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.analysis.manifest import Manifest

# The columns that are read, of tables that may have others: an older or a newer run's.
ROWS = ("seed", "method", "layer", "weight_bits", "target_sparsity", *tables.MEASURED)
LATENCIES = (
    "seed", "method", "target_sparsity", "device", "batch_size", "latency_ms", "latency_iqr_ms",
)  # fmt: skip
FORMATS = ("network", "device", "dtype", "batch_size", "latency_ms", "latency_iqr_ms")
TEXT = {"method", "layer", "device", "network", "dtype"}
# What may be empty: a latency on a device that is not there.
GAPS = {"latency_ms", "latency_iqr_ms"}


@dataclass(frozen=True)
class Run:
    """rows: of all stages and seeds (ROWS); latencies: of the benchmark in turns (LATENCIES), and
    formats: of number formats (FORMATS), both empty where they were not measured.
    """

    manifest: Manifest
    rows: pd.DataFrame
    latencies: pd.DataFrame
    formats: pd.DataFrame


def table(text: str, columns: Sequence[str]) -> pd.DataFrame:
    """`columns` of a CSV's text. ValueError, saying why, where it is torn or lacks one."""
    if not text.endswith("\n"):
        raise ValueError("cut short")
    try:
        found = pd.read_csv(io.StringIO(text))
    except ValueError:
        found = None
    # pandas takes cells that no column is for as names of the lines.
    if found is None or not isinstance(found.index, pd.RangeIndex):
        raise ValueError("not a table")
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(f"of another format, without {', '.join(missing)}")
    if found.empty:
        raise ValueError("empty")
    numbers = found[[name for name in columns if name not in TEXT]]
    if not all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes):
        raise ValueError("text where numbers should be")
    if found[[name for name in columns if name not in GAPS]].isna().any(axis=None):
        raise ValueError("empty cells where there should be numbers")
    return found[list(columns)]
