"""Measures the size of every kept network in every form, selects the smallest file and the fastest
network within the budgets, and copies them with a model card into the folder to deploy.
"""

import hashlib
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.lib.analysis import (
    latencies,
    model_card,
    predictions,
    selection,
    selection_file,
    stage_tables,
)
from stages.lib.analysis.selection import Candidate
from stages.lib.analysis.tables import times
from stages.lib.compression import storage_sizes
from stages.lib.core import hardware, methods, outputs, paths, pipeline, prepared, records
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError
from stages.lib.core.params import NO_LIMIT
from stages.lib.core.records import Row
from stages.lib.core.stage import Stage, run_stage


def candidates_of(stage: Stage, rows: list[Row], meta: dict[str, Any]) -> list[Candidate]:
    """The networks to choose from."""
    seeds, keys = stage.params.seeds, [selection.key_of(row) for row in rows if row.model]
    folders = [[paths.stage_directory(name, seed) for name in methods.stages()] for seed in seeds]
    validation, test = (
        predictions.correct(folders, part, keys, prepared.read_labels(paths.PREPARED, part, meta))
        for part in ("validation", "test")
    )
    table = stage_tables.table(paths.stage_directory("latency_bench") / paths.ROWS, records.LATENCY)
    timed = latencies.by_network(table, seeds, batch_size=1)
    confidence = stage.params.report.confidence
    try:
        return selection.collect(rows, validation, test, timed, seeds, confidence)
    except ValueError as error:
        file = paths.stage_directory("train_baseline", seeds[0]) / paths.ROWS
        raise UserError(f"{file}: {error}; {records.REMEDY}") from None


def main(stage: Stage) -> None:
    params, meta = stage.params, prepared.read_meta(paths.PREPARED)
    package, deploy = stage.place(paths.stage_directory("package")), stage.place(paths.DEPLOY)
    deploy.mkdir()
    rows = [
        row
        for name in methods.stages()
        for seed in params.seeds
        for row in records.read(paths.stage_directory(name, seed) / paths.ROWS)
    ]
    kept = [row for row in rows if row.model and Path(row.model).suffix != paths.ONNX]
    lines = (storage_sizes.line(row, params.model.name) for row in stage.progress(kept, "file"))
    outputs.write_csv(package / paths.ROWS, records.FILE_SIZE, lines)

    limits = dict(params.package)
    budgets = {name: limit for name, limit in limits.items() if limit != NO_LIMIT}
    selected, choices = selection_file.build(
        candidates_of(stage, rows, meta), budgets, params.seeds
    )
    outputs.write_json(package / paths.SELECTION, selected)
    hashes = {}
    for role, choice in choices.items():
        if choice.candidate is None:
            print(f"package: {role}: {choice.reason}", file=sys.stderr)
            continue
        source = Path(choice.candidate.shipped.model)
        copied = deploy / f"{role}{source.suffix}"
        # Without its permissions: files in DVC's cache are read-only.
        shutil.copyfile(source, copied)
        hashes[role] = hashlib.sha256(copied.read_bytes()).hexdigest()
    run = model_card.Run(
        seeds=params.seeds,
        settings=parameters.plain(params),
        sections={
            name: pipeline.declared(name).params for name in ("prepare_data", *methods.stages())
        },
        meta=meta,
        machine=hardware.read(paths.HARDWARE) | {"onnxruntime": metadata.version("onnxruntime")},
        confidence=params.report.confidence,
    )
    stage.result = f"{times(len(hashes), 'file')} recommended"
    card = model_card.describe(selected, choices, hashes, budgets, run)
    outputs.write_json(deploy / paths.MODEL_CARD, card)


if __name__ == "__main__":
    run_stage(main)
