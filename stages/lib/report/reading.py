"""Reads a run from the tables, predictions and images that its stages left."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from stages.lib.analysis import predictions, stage_tables, tables
from stages.lib.analysis.class_costs import Predicted
from stages.lib.analysis.findings import Evidence
from stages.lib.core import engines, hardware, methods, outputs, paths, prepared, records
from stages.lib.core import params as parameters
from stages.lib.core.repository import commit
from stages.lib.report.run import Run

# The tables that a stage has for each seed, by their names in a run.
SEEDED = {
    "best": ("layerwise_sweep", paths.BEST_TRADEOFF, records.BEST_SPARSITY),
    "filters": ("structured_prune", paths.FILTERS, records.PRUNED_LAYER),
    "layers": ("int_quantize", paths.QUANTIZED_LAYERS, records.QUANTIZED_LAYER),
    "agreements": ("export_onnx", paths.AGREEMENT, records.AGREEMENT),
    "int8_layers": ("export_onnx", paths.INT8_LAYERS, records.LAYER_NOISE),
    "curves": ("train_baseline", paths.LEARNING_CURVE, records.EPOCH),
}
PARTS = ("validation", "test")


@dataclass(frozen=True)
class Places:
    """Where a run lies.

    stage: the folder of a stage, and of its seed.
    prepared, hardware: the prepared images, and what describes the machine.
    """

    stage: Callable[..., Path]
    prepared: Path
    hardware: Path

    def folders(self, seeds: Sequence[int]) -> list[Path]:
        """Those of the stages that make networks."""
        return [self.stage(name, seed) for name in methods.stages() for seed in seeds]

    def seeded(
        self, seeds: Sequence[int], stage: str, file: str, columns: Sequence[str]
    ) -> pd.DataFrame:
        """A stage's table, of all seeds."""
        return stage_tables.of_seeds({s: self.stage(stage, s) / file for s in seeds}, columns)

    def table(self, stage: str, columns: Sequence[str], file: str = paths.ROWS) -> pd.DataFrame:
        """The table of a stage without seeds of its own."""
        return stage_tables.table(self.stage(stage) / file, columns)


def read(places: Places, params: SimpleNamespace) -> tuple[Run, Evidence]:
    """The run, and the evidence for the course's findings."""
    seeds, meta = params.seeds, prepared.read_meta(places.prepared)
    labels = {part: prepared.read_labels(places.prepared, part, meta) for part in PARTS}
    rows = stage_tables.rows(folder / paths.ROWS for folder in places.folders(seeds))
    whole = rows[rows.layer == records.ALL_LAYERS][list(tables.KEYS)].drop_duplicates()
    keys = [predictions.Key(*key) for key in whole.itertuples(index=False, name=None)]
    folders = [places.folders([seed]) for seed in seeds]
    correct = predictions.correct(folders, "test", keys, labels["test"])
    timed = (
        places.table("latency_bench", records.LATENCY),
        places.table("dtype_bench", records.LATENCY, paths.LATENCIES),
    )
    refused = [
        places.seeded(seeds, stage, paths.REFUSED, records.REFUSED) for stage in methods.stages()
    ]
    refused.append(places.table("train_teacher", records.REFUSED, paths.REFUSED))
    selected = places.stage("package") / paths.SELECTION
    teacher = places.stage("train_teacher") / paths.TEACHER
    layers = places.stage("train_baseline", seeds[0]) / paths.LAYERS
    run = Run(
        seeds=seeds,
        rows=rows,
        latencies=stage_tables.concatenated(timed),
        sizes=places.table("package", records.FILE_SIZE),
        formats=places.table("dtype_bench", records.FORMAT),
        inventory=stage_tables.table(layers, records.LAYER),
        selection=outputs.read_json(selected, records.REMEDY),
        params=parameters.shown(params),
        meta=meta,
        hardware=hardware.read(places.hardware),
        chance=prepared.commonest(meta, "test")[1],
        labels=labels,
        pictures=prepared.read_images(places.prepared, "validation", meta),
        teacher=outputs.read_json(teacher, records.REMEDY) if teacher.exists() else None,
        made={"date": f"{date.today():%Y-%m-%d}", "commit": commit()},
        intervals=tables.intervals(correct, params.report.confidence),
        refused=stage_tables.concatenated(refused),
        **{name: places.seeded(seeds, *table) for name, table in SEEDED.items()},
    )
    evidence = Evidence(
        rows=rows,
        layers=run.layers,
        formats=run.timed_formats,
        correct=correct,
        sparsity=run.sparsity,
        confidence=run.confidence,
        tolerance=params.report.tolerance,
        isa=run.hardware["isa"],
        chance=run.chance,
    )
    return replace(run, predicted=dict(_predicted(places, run))), evidence


def _predicted(places: Places, run: Run) -> Iterator[tuple[str, Predicted]]:
    """The classes that the baseline and the recommended files give, by their names."""
    for choice in (run.selection["baseline"], *run.chosen.values()):
        stage = methods.METHODS[choice["method"]].stage
        stored, executes = choice["name"], engines.of_file(choice["file"])
        if choice["engine"] in [one.name for one in executes[1:]]:
            stored = paths.executed_name(stored, choice["engine"])
        folders = [places.stage(stage, seed) for seed in run.seeds]
        parts: dict[str, Any] = {
            part: [
                predictions.classes(folder / file, run.labels[part])[stored] for folder in folders
            ]
            for part, file in predictions.FILES.items()
        }
        yield choice["name"], Predicted(**{part: np.stack(one) for part, one in parts.items()})
