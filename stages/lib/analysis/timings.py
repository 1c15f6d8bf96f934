"""The latencies of engines (records.ENGINE_LATENCY), read without torch: what one file takes."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.lib.core import records
from stages.lib.core.errors import UserError

# torch.compile has no file that could be shipped.
ENGINES = ("torch", "onnxruntime")


@dataclass(frozen=True)
class Timing:
    """latency_ms: the median for one batch, iqr_ms its interquartile range (None for one run);
    relative: to the dense float32 network of the same seed in eager torch, timed in turns; engine;
    device; threads; isa: the instruction sets that kernels choose by; runs: calls timed.
    """

    latency_ms: float
    iqr_ms: float | None
    relative: float
    engine: str
    device: str
    threads: int
    isa: str
    runs: int


def _timing(line: Mapping[str, str]) -> Timing:
    return Timing(
        latency_ms=float(line["latency_ms"]),
        iqr_ms=float(line["latency_iqr_ms"]) if line["latency_iqr_ms"] else None,
        relative=float(line["relative_to_eager"]),
        engine=line["engine"],
        device=line["device"],
        threads=int(line["threads"]),
        isa=line["isa"],
        runs=int(line["runs"]),
    )


def read(path: Path, batch_size: int) -> dict[str, Timing]:
    """Of each network that was timed with such a batch, by its file's path as rows have it.

    UserError, naming the file and line, where it is missing, torn or foreign.
    """
    reader = csv.DictReader(records.table_text(path).splitlines())
    records.check_columns(path, reader.fieldnames or [], records.ENGINE_LATENCY)
    found = {}
    for line in reader:
        try:
            if None in line or None in line.values():
                raise ValueError("more or fewer cells than columns")
            here = int(line["batch_size"]) == batch_size and line["engine"] in ENGINES
            # A line without a latency says in its note why there is none.
            if here and line["latency_ms"]:
                found[line["model"]] = _timing(line)
        except ValueError:
            raise UserError(
                f"{path}: line {reader.line_num} is not a latency; {records.REMEDY}"
            ) from None
    return found
