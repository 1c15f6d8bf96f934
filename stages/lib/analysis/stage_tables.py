"""Tables that stages left behind, as pandas reads them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from stages.lib.core import records
from stages.lib.core.errors import UserError

# Columns that hold no numbers, in any table.
TEXT = {
    "parameter", "kind", "shape",
    "layer", "scheme", "granularity", "network", "image_shape", "device", "dtype", "method",
    "model", "note", "coupled_with", "prunable", "reason", "engine", "isa",
}  # fmt: skip


def table(path: Path, columns: Sequence[str], *, may_be_empty: bool = False) -> pd.DataFrame:
    """A CSV as pandas reads it; UserError where it is missing, torn or foreign, or has no line."""
    try:
        found = pd.read_csv(io.StringIO(records.table_text(path)))
    except ValueError:
        raise UserError(f"{path}: not a table; {records.REMEDY}") from None
    records.check_columns(path, found.columns, columns)
    if found.empty and may_be_empty:
        return found
    numbers = [name for name in columns if name not in TEXT]
    if found.empty or not all(pd.api.types.is_numeric_dtype(found[name]) for name in numbers):
        raise UserError(f"{path}: empty, or text where numbers should be; {records.REMEDY}")
    return found


def of_seeds(files: Mapping[int, Path], columns: Sequence[str]) -> pd.DataFrame:
    """The same table of several seeds, with a column `seed` in front."""
    joined = []
    for seed, path in files.items():
        one = table(path, columns)
        one.insert(0, "seed", one.pop("seed") if "seed" in one else seed)
        joined.append(one)
    return pd.concat(joined, ignore_index=True)


def rows(files: Sequence[Path]) -> pd.DataFrame:
    """The rows of several stages and seeds, their schema checked. UserError: a file has none."""
    found = []
    for path in files:
        some = records.read(path)
        if not some:
            raise UserError(f"{path}: no rows; {records.REMEDY}")
        found += some
    return pd.DataFrame(found)
