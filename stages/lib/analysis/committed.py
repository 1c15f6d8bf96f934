"""A run as reports/ keeps it in Git, from its texts: what it was made with, and its tables."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from stages.lib.analysis import tables
from stages.lib.core import hardware

# The columns that are read, of tables that may have others: an older or a newer run's.
ROWS = ("seed", "method", "layer", "weight_bits", "target_sparsity", *tables.MEASURED)
LATENCIES = (
    "seed", "method", "engine", "target_sparsity", "device", "batch_size", "latency_ms",
    "latency_iqr_ms",
)  # fmt: skip
TEXT = {"method", "layer", "engine", "device"}
# What may be empty: a latency on a device that is not there.
GAPS = {"latency_ms", "latency_iqr_ms"}


class Images(BaseModel):
    """How many there are."""

    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt


class Data(BaseModel):
    """Fields as in the description of the prepared data."""

    source: str
    checksum: str
    classes: list[str]
    images: Images
    image_shape: list[int]


class Manifest(BaseModel):
    """What a run was made with: the little that decides whether two runs can be compared.

    model: the params of that name; hardware: as `hardware.describe` gives it.
    """

    seeds: list[int] = Field(min_length=1)
    model: dict[str, Any]
    data: Data
    hardware: dict[str, Any] = Field(min_length=len(hardware.KEYS))

    def same_data(self, other: "Manifest") -> bool:
        """Whether both saw the same images in the same parts, under the same names."""
        apart = {"source", "image_shape"}
        return self.data.model_dump(exclude=apart) == other.data.model_dump(exclude=apart)

    def same_shape(self, other: "Manifest") -> bool:
        """Whether a network fits the data of both: sizes and latencies can be compared."""
        mine, its = ((run.data.image_shape, len(run.data.classes)) for run in (self, other))
        return mine == its

    def same_machine(self, other: "Manifest") -> bool:
        """Whether both ran on machines of one description; their software may differ."""
        return all(self.hardware[key] == other.hardware[key] for key in hardware.MACHINE)


@dataclass(frozen=True)
class Run:
    """rows: of all stages and seeds (ROWS); latencies: of all that was timed (LATENCIES), empty
    where nothing was.
    """

    manifest: Manifest
    rows: pd.DataFrame
    latencies: pd.DataFrame


def manifest(text: str) -> Manifest:
    """From its JSON. ValueError, saying so, where it is torn or of another kind."""
    try:
        found = Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        torn = error.errors()[0]["type"] == "json_invalid"
        raise ValueError("not JSON (cut short?)" if torn else "of another format") from None
    if set(found.hardware) != set(hardware.KEYS):
        raise ValueError("of another format")
    return found


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
    numbers = found[[name for name in columns if name not in TEXT]]
    if len(found) and not all(map(pd.api.types.is_numeric_dtype, numbers.dtypes)):
        raise ValueError("text where numbers should be")
    if found[[name for name in columns if name not in GAPS]].isna().any(axis=None):
        raise ValueError("empty cells where there should be numbers")
    return found[list(columns)]
