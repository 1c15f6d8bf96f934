"""Joins the tables of all stages and seeds into reports/: the report, pictures, plots, metrics."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.analysis import (
    committed,
    exports,
    findings,
    metrics,
    predictions,
    stage_tables,
    tables,
)
from stages.lib.analysis.class_costs import Predicted
from stages.lib.core import engines, hardware, methods, outputs, paths, prepared, records
from stages.lib.core import params as parameters
from stages.lib.core.stage import Stage, run_stage
from stages.lib.report import figures, html, markdown, terminal
from stages.lib.report.run import Run

# The stages whose tables are read, besides those that make networks.
JOINED = ("dtype_bench", "latency_bench", "package")
# The tables that a stage has for each seed, by their names in a run.
SEEDED = {
    "best": ("layerwise_sweep", paths.BEST_TRADEOFF, records.BEST_SPARSITY),
    "filters": ("structured_prune", paths.FILTERS, records.PRUNED_LAYER),
    "targets": ("compress", paths.SIZE_TARGETS, records.SIZE_TARGET),
    "layers": ("int_quantize", paths.QUANTIZED_LAYERS, records.QUANTIZED_LAYER),
    "agreements": ("export_onnx", paths.AGREEMENT, records.AGREEMENT),
    "int8_layers": ("export_onnx", paths.INT8_LAYERS, records.LAYER_NOISE),
    "curves": ("train_baseline", paths.LEARNING_CURVE, records.EPOCH),
}


def directories(seeds: Sequence[int]) -> list[Path]:
    """The folders of the stages that make networks."""
    return [paths.stage_directory(stage, seed) for stage in methods.stages() for seed in seeds]


def of_seeds(seeds: Sequence[int], stage: str, file: str, columns: Sequence[str]) -> pd.DataFrame:
    """A stage's table, of all seeds."""
    files = {seed: paths.stage_directory(stage, seed) / file for seed in seeds}
    return stage_tables.of_seeds(files, columns)


def joined(stage: str, columns: Sequence[str], file: str = paths.ROWS) -> pd.DataFrame:
    """The table of a stage without seeds of its own."""
    return stage_tables.table(paths.stage_directory(stage) / file, columns)


def correct_of(seeds: Sequence[int], rows: pd.DataFrame, meta: dict) -> predictions.Correct:
    """Which network is right on which test image."""
    whole = rows[rows.layer == records.ALL_LAYERS][list(tables.KEYS)].drop_duplicates()
    keys = [predictions.Key(*key) for key in whole.itertuples(index=False, name=None)]
    labels = prepared.read_labels(paths.PREPARED, "test", meta)
    return predictions.correct([directories([seed]) for seed in seeds], "test", keys, labels)


def read_run(params: Any, meta: dict) -> tuple[Run, predictions.Correct]:
    """Reads the run: the data of the reports, and which network is right on which test image."""
    seeds = params.seeds
    rows = stage_tables.rows(directory / paths.ROWS for directory in directories(seeds))
    correct = correct_of(seeds, rows, meta)
    layers = paths.stage_directory("train_baseline", seeds[0]) / paths.LAYERS
    timed = (
        joined("latency_bench", records.LATENCY),
        joined("dtype_bench", records.LATENCY, paths.LATENCIES),
    )
    run = Run(
        seeds=seeds,
        rows=rows,
        latencies=stage_tables.concatenated(timed),
        sizes=joined("package", records.FILE_SIZE),
        formats=joined("dtype_bench", records.FORMAT),
        inventory=stage_tables.table(layers, records.LAYER),
        selection=outputs.read_json(
            paths.stage_directory("package") / paths.SELECTION, records.REMEDY
        ),
        params=parameters.shown(params),
        meta=meta,
        hardware=hardware.read(paths.HARDWARE),
        chance=prepared.commonest(meta, "test")[1],
        labels=labels_of(meta),
        pictures=prepared.read_images(paths.PREPARED, "validation", meta),
        made={"date": f"{date.today():%Y-%m-%d}", "commit": commit()},
        intervals=tables.intervals(correct, params.report.confidence),
        refused=stage_tables.concatenated(
            [of_seeds(seeds, stage, paths.REFUSED, records.REFUSED) for stage in methods.stages()]
        ),
        **{name: of_seeds(seeds, *table) for name, table in SEEDED.items()},
    )
    return replace(run, predicted=predicted_of(run)), correct


def labels_of(meta: dict) -> dict[str, NDArray[np.int64]]:
    """The labels of the parts that networks are measured on."""
    return {
        part: prepared.read_labels(paths.PREPARED, part, meta) for part in ("validation", "test")
    }


def predicted_of(run: Run) -> dict[str, Predicted]:
    """The classes that the baseline and the recommended files give."""
    found = {}
    for choice in (run.selection["baseline"], *run.chosen.values()):
        stage = methods.METHODS[choice["method"]].stage
        stored, executes = choice["name"], engines.of_file(choice["file"])
        if choice["engine"] in [one.name for one in executes[1:]]:
            stored = paths.executed_name(stored, choice["engine"])
        folders = [paths.stage_directory(stage, seed) for seed in run.seeds]
        parts = {
            part: [
                predictions.classes(folder / predictions.FILES[part], labels)[stored]
                for folder in folders
            ]
            for part, labels in run.labels.items()
        }
        found[choice["name"]] = Predicted(**{part: np.stack(one) for part, one in parts.items()})
    return found


def commit() -> str:
    """The commit of this code, marked if files differ from it; empty outside of a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        return ""
    return done.stdout.strip().replace("-dirty", " and changes")


def evidence_of(run: Run, correct: predictions.Correct) -> findings.Evidence:
    """The evidence for the course's findings."""
    return findings.Evidence(
        rows=run.rows,
        layers=run.layers,
        formats=run.timed_formats,
        correct=correct,
        sparsity=run.sparsity,
        confidence=run.confidence,
        tolerance=run.params["report"]["tolerance"],
        isa=run.hardware["isa"],
        chance=run.chance,
    )


def copy_tables(seeds: Sequence[int], target: Path) -> None:
    """Copies every table of the run into folders by stage and seed."""
    for source in directories(seeds) + [paths.stage_directory(stage) for stage in JOINED]:
        folder = target / source.relative_to(paths.ARTIFACTS)
        folder.mkdir(parents=True)
        for file in sorted(source.glob(paths.TABLES)):
            shutil.copyfile(file, folder / file.name)


def main(stage: Stage) -> None:
    run, correct = read_run(stage.params, prepared.read_meta(paths.PREPARED))
    found, drawn = findings.judge(evidence_of(run, correct)), figures.build(run)
    text = markdown.render(run, found, drawn, paths.FIGURES.name)
    outputs.write_text(stage.place(paths.REPORT_MARKDOWN), text)
    outputs.write_text(stage.place(paths.REPORT_PAGE), html.render(run, found, drawn))
    figures.save(list(drawn.values()), stage.place(paths.FIGURES))
    plots = exports.plots(run.rows, run.layers, run.curves, run.selection)
    exports.save(plots, stage.place(paths.PLOTS))

    copy_tables(run.seeds, stage.place(paths.RUNS))
    about = committed.Manifest(
        seeds=run.seeds, model=run.params["model"], data=run.meta, hardware=run.hardware
    )
    outputs.write_json(stage.place(paths.RUNS) / paths.MANIFEST, about.model_dump())
    outputs.write_json(stage.place(paths.FINDINGS), findings.to_json(found, run.context))
    numbers = metrics.named(run.rows, run.sparsity, run.max_drop)
    numbers |= {"packed": metrics.packed(run.rows), "deploy": metrics.deployed(run.selection)}
    outputs.write_json(stage.place(paths.METRICS), numbers)
    stage.closing = terminal.closing(run.selection, paths.DEPLOY, paths.REPORT_PAGE)


if __name__ == "__main__":
    run_stage(main)
