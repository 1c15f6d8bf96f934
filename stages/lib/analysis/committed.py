"""Reads a run from the files of reports/ in Git: what it was made with, and its tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from stages.lib.analysis import stage_tables
from stages.lib.core import hardware
from stages.lib.core.records import ALL_LAYERS

# The columns that are compared. Tables of older or newer runs may have others too.
ROWS = (
    "seed", "method", "layer", "weight_bits", "target_sparsity", "validation_accuracy",
    "test_accuracy", "bytes_on_disk",
)  # fmt: skip
LATENCIES = (
    "seed", "method", "engine", "target_sparsity", "device", "batch_size", "latency_ms",
    "latency_iqr_ms",
)  # fmt: skip
# The `layer` of whole networks in older runs.
OLD_ALL_LAYERS = "all"
# The columns that may be empty: latencies on a device that is missing.
GAPS = ["latency_ms", "latency_iqr_ms"]


class Images(BaseModel):
    """The number of images of each part."""

    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt


class Data(BaseModel):
    """The data of a run; the fields are those of prepared.Meta."""

    source: str
    checksum: str
    classes: list[str]
    images: Images
    image_shape: list[int]


class Manifest(BaseModel):
    """What decides whether two runs can be compared.

    model: the params section.
    hardware: of `hardware.describe`.
    """

    seeds: list[int] = Field(min_length=1)
    model: dict[str, Any]
    data: Data
    hardware: dict[str, Any]

    def same_data(self, other: "Manifest") -> bool:
        """Whether both have the same images in the same parts, with the same class names."""
        apart = {"source", "image_shape"}
        return self.data.model_dump(exclude=apart) == other.data.model_dump(exclude=apart)

    def same_shape(self, other: "Manifest") -> bool:
        """Whether the same network fits the data of both, so that sizes and latencies compare."""
        mine, its = ((run.data.image_shape, len(run.data.classes)) for run in (self, other))
        return mine == its

    def same_machine(self, other: "Manifest") -> bool:
        """Whether both ran on the same kind of machine; their software may differ."""
        return all(self.hardware[key] == other.hardware[key] for key in hardware.MACHINE)


@dataclass(frozen=True)
class Run:
    """A run.

    rows: of all stages and seeds (ROWS).
    latencies: all of them (LATENCIES); empty if nothing was timed.
    """

    manifest: Manifest
    rows: pd.DataFrame
    latencies: pd.DataFrame


def manifest(text: str) -> Manifest:
    """Reads a manifest from JSON. ValueError with the reason if it is damaged or another file."""
    try:
        found = Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        torn = error.errors()[0]["type"] == "json_invalid"
        raise ValueError("not JSON (cut short?)" if torn else "of another format") from None
    if set(found.hardware) != set(hardware.KEYS):
        raise ValueError("of another format")
    return found


def table(text: str, columns: Sequence[str]) -> pd.DataFrame:
    """Reads `columns` from a CSV's text. ValueError with the reason if it is damaged or lacks
    one.
    """
    found = stage_tables.parsed(text, columns)
    if found.drop(columns=GAPS, errors="ignore").isna().any(axis=None):
        raise ValueError("empty cells where there should be numbers")
    return found.replace({"layer": {OLD_ALL_LAYERS: ALL_LAYERS}}) if "layer" in found else found
