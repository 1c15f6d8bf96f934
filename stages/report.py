"""Joins the tables of all stages and seeds into reports/: page, pictures, plots, metrics."""

import json
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from stages.lib.analysis import (
    committed,
    exports,
    findings,
    metrics,
    model_card,
    predictions,
    stage_tables,
    tables,
)
from stages.lib.core import hardware, outputs, paths, prepared, records
from stages.lib.core.stage import run_stage
from stages.lib.report import figures, html, markdown

SEEDED = (
    "train_baseline", "layerwise_sweep", "global_prune", "finetune", "iterative_prune",
    "controls", "equal_budget", "structured_prune", "int_quantize",
)  # fmt: skip
# What leaves files to deploy.
DEPLOYING = ("compress", "onnx_bench")


def seeded(seeds: list[int], stage: str, file: str, columns: Sequence[str]) -> pd.DataFrame:
    """One stage's table of all seeds."""
    files = {seed: paths.stage_directory(stage, seed) / file for seed in seeds}
    return stage_tables.of_seeds(files, columns)


def rows_of(seeds: list[int], stages: Sequence[str]) -> pd.DataFrame:
    """The rows of these stages and all seeds."""
    return stage_tables.rows(
        [paths.stage_directory(stage, seed) / paths.ROWS for stage in stages for seed in seeds]
    )


def correct_of(
    seeds: list[int],
    stages: Sequence[str],
    rows: pd.DataFrame,
    labels: np.ndarray,
    names: list[str],
) -> predictions.Correct:
    """Whose network is right on which test image, of every whole network in `rows`, which are of
    these stages; by the columns `names`.
    """
    keys = rows[rows.layer == records.ALL_LAYERS][names].drop_duplicates()
    files = [
        [paths.stage_directory(stage, seed) / paths.PREDICTIONS for stage in stages]
        for seed in seeds
    ]
    return predictions.correct(files, keys.itertuples(index=False, name=None), labels)


def tables_of(seeds: list[int]) -> list[tuple[str, int | None, str]]:
    """Stage, seed (None where it has none) and file of every table that a run leaves."""
    per_seed = [
        *((stage, paths.ROWS) for stage in (*SEEDED, *DEPLOYING)),
        ("train_baseline", paths.LEARNING_CURVE),
        ("train_baseline", paths.LAYERS),
        ("layerwise_sweep", paths.BEST_TRADEOFF),
        ("structured_prune", paths.FILTERS),
        ("int_quantize", paths.QUANTIZED_LAYERS),
        ("latency_bench", paths.ROWS),
        ("onnx_bench", paths.AGREEMENT),
        ("onnx_latency", paths.ROWS),
    ]
    return [
        *((stage, seed, file) for stage, file in per_seed for seed in seeds),
        ("dtype_bench", None, paths.ROWS),
        ("file_sizes", None, paths.ROWS),
    ]


def settings_of(params) -> dict[str, Any]:
    """The params that the run was made with, as plain values by section."""
    return {
        name: value if isinstance(value, list) else dict(value)
        for name, value in vars(params).items()
    }


def seconds_of(seeds: list[int]) -> dict[str, dict[int | None, float]]:
    """What each stage took, by seed; without those that left no note of it (DVC restored them)."""
    asked = [
        ("prepare_data", [None]),
        *((stage, seeds) for stage in (*SEEDED, "compress", "latency_bench", "onnx_bench")),
        ("dtype_bench", seeds[:1]),
        ("file_sizes", [None]),
        ("package", [None]),
    ]
    found: dict[str, dict[int | None, float]] = {}
    for stage, names in asked:
        for seed in names:
            file = paths.time_file(stage, seed)
            if file.exists():
                seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
                found.setdefault(stage, {})[seed] = seconds
    return found


def deployed_of(seeds: list[int]) -> markdown.Deployed:
    """What there is of files to deploy."""
    return markdown.Deployed(
        rows=rows_of(seeds, DEPLOYING),
        engines=seeded(seeds, "onnx_latency", paths.ROWS, records.ENGINE_LATENCY),
        agreements=seeded(seeds, "onnx_bench", paths.AGREEMENT, records.AGREEMENT),
        sizes=stage_tables.table(
            paths.stage_directory("file_sizes") / paths.ROWS, records.FILE_SIZE
        ),
        card=model_card.read(paths.DEPLOY / paths.MODEL_CARD),
    )


def main(params) -> None:
    seeds, sparsity = params.seeds, params.report.sparsity
    max_drop = params.layerwise_sweep.max_accuracy_drop
    rows, deployed = rows_of(seeds, SEEDED), deployed_of(seeds)
    layers = seeded(seeds, "int_quantize", paths.QUANTIZED_LAYERS, records.QUANTIZED_LAYER)
    curves = seeded(seeds, "train_baseline", paths.LEARNING_CURVE, records.EPOCH)
    formats = stage_tables.table(paths.stage_directory("dtype_bench") / paths.ROWS, records.FORMAT)
    layers_of_network = stage_tables.table(
        paths.stage_directory("train_baseline", seeds[0]) / paths.LAYERS, records.LAYER
    )
    latencies = seeded(seeds, "latency_bench", paths.ROWS, records.LATENCY)
    meta, machine = prepared.read_meta(paths.PREPARED), hardware.read(paths.HARDWARE)
    labels = prepared.read_labels(paths.PREPARED, "test", meta)
    correct = correct_of(seeds, SEEDED, rows, labels, list(tables.KEYS[:3]))
    files = correct_of(seeds, DEPLOYING, deployed.rows, labels, list(tables.KEYS))
    run = markdown.Run(
        seeds=seeds,
        rows=rows,
        best=seeded(seeds, "layerwise_sweep", paths.BEST_TRADEOFF, records.BEST_SPARSITY),
        layers=layers,
        formats=formats,
        latencies=latencies,
        filters=seeded(seeds, "structured_prune", paths.FILTERS, records.PRUNED_LAYER),
        network=params.model.name,
        weights=params.model.weights,
        inventory=layers_of_network,
        meta=meta,
        hardware=machine,
        sparsity=sparsity,
        max_drop=max_drop,
        curves=curves if curves.epoch.max() > 0 else None,
        intervals=tables.intervals(correct | files, params.report.confidence),
        confidence=params.report.confidence,
        settings=settings_of(params),
        seconds=seconds_of(seeds),
        deployed=deployed,
    )
    found = findings.judge(
        findings.Evidence(
            rows=rows,
            layers=layers,
            formats=formats,
            correct=correct,
            sparsity=sparsity,
            confidence=params.report.confidence,
            tolerance=params.report.tolerance,
            isa=machine["isa"],
            chance=float(np.bincount(labels).max() / len(labels)),
        )
    )
    context = {
        "network": params.model.name,
        "data": meta["source"],
        "classes": len(meta["classes"]),
        "test_images": len(labels),
        "seeds": list(seeds),
        "confidence": params.report.confidence,
        "tolerance": params.report.tolerance,
    }
    drawn = figures.build(run)
    places = {one.name: f"{paths.FIGURES.name}/{paths.picture_name(one.name)}" for one in drawn}
    text, site = markdown.render(run, found, places), html.render(run, found, drawn)

    with (
        outputs.whole_directory(paths.FIGURES) as directory,
        outputs.whole_directory(paths.PLOTS) as plots,
        outputs.whole_directory(paths.RUNS) as runs,
    ):
        figures.save(drawn, directory)
        for name, plot in exports.plots(rows, layers, curves).items():
            plot.to_csv(plots / name, index=False)
        for stage, seed, file in tables_of(seeds):
            source = paths.stage_directory(stage, seed) / file
            copied = runs / paths.reported(source).relative_to(paths.RUNS)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copied)
        about = committed.Manifest(
            seeds=seeds, model=params.model.model_dump(), data=meta, hardware=machine
        )
        outputs.write_json(runs / paths.MANIFEST, about.model_dump())
    outputs.write_text(paths.REPORT_PAGE, text)
    outputs.write_text(paths.REPORT_SITE, site)
    outputs.write_json(paths.FINDINGS, findings.to_json(found, context))
    outputs.write_json(paths.METRICS, metrics.named(rows, sparsity, max_drop))


if __name__ == "__main__":
    # All of them: the page tells what was run.
    run_stage(
        main,
        reads=[
            "seeds", "sparsities", "compute", "data", "model", "training", "train_baseline",
            "layerwise_sweep", "finetune", "iterative_prune", "controls", "equal_budget",
            "structured_prune", "compress", "dtype_bench", "latency_bench", "int_quantize",
            "onnx_bench", "package", "report",
        ],
    )  # fmt: skip
