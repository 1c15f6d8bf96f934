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
    "model", "note", "coupled_with", "prunable", "reason", "engine", "isa", "float32",
}  # fmt: skip


def parsed(text: str, columns: Sequence[str]) -> pd.DataFrame:
    """These columns of a CSV's text, which may have more; it may have no lines. ValueError with the
    reason if it is damaged or lacks one.
    """
    if not text.endswith("\n"):
        raise ValueError("cut short")
    try:
        # Layers and modules may be called "NA" or "null": in text columns, only "" is missing.
        found = pd.read_csv(
            io.StringIO(text), dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""]
        )
    except ValueError:
        found = None
    # pandas takes surplus cells for names of the lines.
    if found is None or not isinstance(found.index, pd.RangeIndex):
        raise ValueError("not a table")
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(f"of another format, without {', '.join(missing)}")
    numbers = [name for name in columns if name not in TEXT]
    if found.empty:
        found = found.astype(dict.fromkeys(numbers, float))
    if not all(map(pd.api.types.is_numeric_dtype, found[numbers].dtypes)):
        raise ValueError("text where numbers should be")
    return found[list(columns)]


def table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A stage's CSV as a pandas table; it may have no lines. UserError if it is missing, damaged or
    has other columns.
    """
    text = records.table_text(path)
    records.check_columns(path, text.partition("\n")[0].split(","), columns)
    try:
        return parsed(text, columns)
    except ValueError as error:
        raise UserError(f"{path}: {error}; {records.REMEDY}") from None


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
