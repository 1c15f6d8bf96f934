"""Measures the size of every kept network in every form, selects the smallest file and the fastest
network within the budgets, and makes the folder to deploy: with them lies all that runs them.
"""

import sys
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
from stages.lib.core import engines, hardware, methods, outputs, paths, pipeline, prepared, records
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError
from stages.lib.core.params import NONE
from stages.lib.core.records import Row
from stages.lib.core.stage import Stage, run_stage
from stages.lib.deploy import card_page, folder


def candidates_of(stage: Stage, rows: list[Row], meta: dict[str, Any]) -> list[Candidate]:
    """The networks to choose from."""
    seeds = stage.params.seeds
    keys = [key for row in rows if row.model for key in selection.executed(row)]
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
    budgets = {name: limit for name, limit in limits.items() if limit != NONE}
    candidates = candidates_of(stage, rows, meta)
    selected, choices = selection_file.build(candidates, budgets, params.seeds)
    outputs.write_json(package / paths.SELECTION, selected)
    for role, choice in choices.items():
        if choice.candidate is None:
            print(f"package: {role}: {choice.reason}", file=sys.stderr)
    hashes = folder.copy(choices, deploy)
    run = model_card.Run(
        seeds=params.seeds,
        settings=parameters.shown(params),
        sections={
            name: pipeline.declared(name).params for name in ("prepare_data", *methods.stages())
        },
        meta=meta,
        machine=hardware.read(paths.HARDWARE) | engines.versions(),
        confidence=params.report.confidence,
    )
    stage.result = f"{times(len(hashes), 'file')} recommended"
    card = model_card.describe(selected, choices, hashes, budgets, run)
    shipped = {role: choices[role].candidate.shipped for role in hashes}
    folder.fill(deploy, card, shipped, params.model, prepared.load(paths.PREPARED))
    page = card_page.render(card, deploy, len(candidates), selection_file.of_engine(selected))
    outputs.write_text(deploy / paths.CARD_PAGE, page)


if __name__ == "__main__":
    run_stage(main)
