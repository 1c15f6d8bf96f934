"""Joins the tables of all stages and seeds into reports/: the report, pictures, plots, metrics."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.lib.analysis import (
    committed,
    exports,
    findings,
    metrics,
    predictions,
    stage_tables,
    tables,
)
from stages.lib.analysis.number_formats import with_latencies
from stages.lib.core import hardware, methods, outputs, paths, prepared, records
from stages.lib.core import params as parameters
from stages.lib.core.stage import Stage, run_stage
from stages.lib.report import figures, html, markdown
from stages.lib.report.run import Run

# The stages whose tables are read, besides those that make networks.
JOINED = ("dtype_bench", "latency_bench", "package")

# The families that the course is about: not packed files, nor those of ONNX Runtime.
COURSE = (
    methods.DENSE, methods.UNSTRUCTURED, methods.STRUCTURED, methods.LAYER, methods.INTEGER
)  # fmt: skip


def directories(stages: Sequence[str], seeds: Sequence[int]) -> list[Path]:
    """The folders of these stages for each seed."""
    return [paths.stage_directory(stage, seed) for stage in stages for seed in seeds]


def of_seeds(seeds: Sequence[int], stage: str, file: str, columns: Sequence[str]) -> pd.DataFrame:
    """A stage's table, of all seeds."""
    files = {seed: paths.stage_directory(stage, seed) / file for seed in seeds}
    return stage_tables.of_seeds(files, columns)


def joined(stage: str, columns: Sequence[str], file: str = paths.ROWS) -> pd.DataFrame:
    """The table of a stage without seeds of its own."""
    return stage_tables.table(paths.stage_directory(stage) / file, columns)


def copy_tables(seeds: Sequence[int], target: Path) -> None:
    """Copies every table of the run into folders by stage and seed."""
    sources = directories(methods.stages(), seeds) + [paths.stage_directory(one) for one in JOINED]
    for source in sources:
        folder = target / source.relative_to(paths.ARTIFACTS)
        folder.mkdir(parents=True)
        for file in sorted(source.glob(paths.TABLES)):
            shutil.copyfile(file, folder / file.name)


def correct_of(seeds: Sequence[int], rows: pd.DataFrame, labels: np.ndarray) -> predictions.Correct:
    """Which network is right on which test image."""
    whole = rows[rows.layer == records.ALL_LAYERS][list(tables.KEYS)].drop_duplicates()
    keys = [predictions.Key(*key) for key in whole.itertuples(index=False, name=None)]
    folders = [directories(methods.stages(), [seed]) for seed in seeds]
    return predictions.correct(folders, "test", keys, labels)


def read_run(params: Any, meta: dict, labels: np.ndarray) -> tuple[Run, findings.Evidence]:
    """Reads the run: the data of the reports, with the findings."""
    seeds = params.seeds
    rows = stage_tables.rows([one / paths.ROWS for one in directories(methods.stages(), seeds)])
    correct = correct_of(seeds, rows, labels)
    machine = hardware.read(paths.HARDWARE)
    formats = joined("dtype_bench", records.FORMAT)
    latencies = pd.concat(
        [
            joined("latency_bench", records.LATENCY),
            joined("dtype_bench", records.LATENCY, paths.LATENCIES),
        ],
        ignore_index=True,
    )
    layers = of_seeds(seeds, "int_quantize", paths.QUANTIZED_LAYERS, records.QUANTIZED_LAYER)
    evidence = findings.Evidence(
        rows=tables.of_family(rows, *COURSE),
        layers=layers,
        formats=with_latencies(formats, latencies),
        correct=correct,
        sparsity=params.report.sparsity,
        confidence=params.report.confidence,
        tolerance=params.report.tolerance,
        isa=machine["isa"],
        chance=prepared.commonest(meta, "test")[1],
    )
    run = Run(
        seeds=seeds,
        rows=rows,
        best=of_seeds(seeds, "layerwise_sweep", paths.BEST_TRADEOFF, records.BEST_SPARSITY),
        filters=of_seeds(seeds, "structured_prune", paths.FILTERS, records.PRUNED_LAYER),
        layers=layers,
        agreements=of_seeds(seeds, "export_onnx", paths.AGREEMENT, records.AGREEMENT),
        latencies=latencies,
        sizes=joined("package", records.FILE_SIZE),
        formats=formats,
        inventory=stage_tables.table(
            paths.stage_directory("train_baseline", seeds[0]) / paths.LAYERS, records.LAYER
        ),
        curves=of_seeds(seeds, "train_baseline", paths.LEARNING_CURVE, records.EPOCH),
        selection=outputs.read_json(paths.package_directory() / paths.SELECTION, records.REMEDY),
        findings=findings.judge(evidence),
        params=parameters.plain(params),
        meta=meta,
        hardware=machine,
        chance=evidence.chance,
        intervals=tables.intervals(correct, params.report.confidence),
    )
    return run, evidence


def main(stage: Stage) -> None:
    params, meta = stage.params, prepared.read_meta(paths.PREPARED)
    labels = prepared.read_labels(paths.PREPARED, "test", meta)
    run, evidence = read_run(params, meta, labels)
    drawn = figures.build(run)
    outputs.write_text(
        stage.place(paths.REPORT_PAGE), markdown.render(run, drawn, paths.FIGURES.name)
    )
    outputs.write_text(stage.place(paths.REPORT_SITE), html.render(run, drawn))
    figures.save(list(drawn.values()), stage.place(paths.FIGURES))

    stage.place(paths.PLOTS).mkdir()
    for name, plot in exports.plots(evidence.rows, run.layers, run.curves).items():
        plot.to_csv(stage.place(paths.PLOTS) / name, index=False)
    copy_tables(run.seeds, stage.place(paths.RUNS))
    about = committed.Manifest(
        seeds=run.seeds, model=run.params["model"], data=meta, hardware=run.hardware
    )
    outputs.write_json(stage.place(paths.RUNS) / paths.MANIFEST, about.model_dump())
    context = {
        "network": params.model.name,
        "data": meta["source"],
        "classes": len(meta["classes"]),
        "test_images": len(labels),
        "seeds": list(run.seeds),
        "confidence": run.confidence,
        "tolerance": params.report.tolerance,
    }
    outputs.write_json(stage.place(paths.FINDINGS), findings.to_json(run.findings, context))
    numbers = metrics.named(evidence.rows, run.sparsity, run.max_drop)
    outputs.write_json(stage.place(paths.METRICS), numbers)


if __name__ == "__main__":
    run_stage(main)
