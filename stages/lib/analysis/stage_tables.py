"""Reads the tables of stages with pandas."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from stages.lib.core import records
from stages.lib.core.errors import UserError

# The columns of all tables that are not numbers.
TEXT = {
    "parameter", "kind", "shape",
    "layer", "scheme", "granularity", "network", "image_shape", "device", "dtype", "method",
    "model", "note", "coupled_with", "prunable", "reason", "engine", "isa",
}  # fmt: skip


def table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV as a pandas table; it may have no lines. UserError if it is missing, damaged or another
    table.
    """
    try:
        # Layers and modules may be called "NA" or "null": in text columns, only "" is missing.
        text = dict.fromkeys(TEXT & set(columns), str)
        found = pd.read_csv(
            io.StringIO(records.table_text(path)), dtype=text, keep_default_na=False, na_values=[""]
        )
    except ValueError:
        raise UserError(f"{path}: not a table; {records.REMEDY}") from None
    records.check_columns(path, found.columns, columns)
    numbers = [name for name in columns if name not in TEXT]
    if found.empty:
        return found.astype(dict.fromkeys(numbers, float))
    if not all(pd.api.types.is_numeric_dtype(found[name]) for name in numbers):
        raise UserError(f"{path}: text where numbers should be; {records.REMEDY}")
    return found


def of_seeds(files: Mapping[int, Path], columns: Sequence[str]) -> pd.DataFrame:
    """The same table of several seeds, with a first column `seed`."""
    joined = []
    for seed, path in files.items():
        found = table(path, columns)
        found.insert(0, "seed", found.pop("seed") if "seed" in found else seed)
        joined.append(found)
    return concatenated(joined)


def concatenated(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other. One without lines changes no column's type."""
    return pd.concat([one for one in tables if len(one)] or tables[:1], ignore_index=True)


def rows(files: Iterable[Path]) -> pd.DataFrame:
    """The rows of several stages and seeds, with checked columns."""
    found = [row for path in files for row in records.read(path)]
    return pd.DataFrame(found, columns=list(records.COLUMNS))
