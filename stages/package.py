"""Measures the size of every kept network in every form, selects the smallest file and the fastest
network within the budgets, and makes the folder to deploy: with them lies all that runs them.
"""

import hashlib
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

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
from stages.lib.core import (
    engines,
    hardware,
    methods,
    normalization,
    outputs,
    paths,
    pipeline,
    prepared,
    records,
)
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError
from stages.lib.core.params import NONE
from stages.lib.core.records import Row
from stages.lib.core.stage import Stage, run_stage
from stages.lib.deploy import card_page, graphs, predict, sample, unpack
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.samples import Samples

# The test images on which graphs are checked, and of which one becomes the sample.
IMAGES = 100


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


def copied(choices: Mapping[str, selection.Choice], deploy: Path) -> dict[str, Path]:
    """Copies the chosen files into the folder to deploy: the copy for each role that has one."""
    files = {}
    for role, choice in choices.items():
        if choice.candidate is None:
            print(f"package: {role}: {choice.reason}", file=sys.stderr)
            continue
        source = Path(choice.candidate.shipped.model)
        files[role] = deploy / f"{role}{source.suffix}"
        # Without its permissions: files in DVC's cache are read-only.
        shutil.copyfile(source, files[role])
    return files


def made_runnable(stage: Stage, row: Row, file: Path, samples: Samples, classes: list[str]) -> dict:
    """Adds to a copied file what ONNX Runtime needs to execute it: the card's words about that."""
    about = {"file": file.name, "bytes": None, "layout": None, "unpacked": None, "note": None}
    if file.suffix == paths.ONNX:
        return about
    model, quantized = storage_sizes.load(row, stage.params.model.name)
    try:
        notes = {"method": row.method, "seed": row.seed}
        graph, *more = graphs.make_runnable(model, file, bool(quantized), samples, classes, notes)
    except UserError as error:
        return about | {"file": None, "note": str(error)}
    layout, unpacked = (one.name for one in more) if more else (None, None)
    told = {"file": graph.name, "bytes": graph.stat().st_size}
    return about | told | {"layout": layout, "unpacked": unpacked}


def fill(stage: Stage, deploy: Path, card: dict[str, Any], rows: Mapping[str, Row]) -> None:
    """Adds to the copied files and the card all else that belongs into the folder.

    rows: of the copied file of each role.
    """
    data = prepared.load(paths.PREPARED)
    images, labels = data.test.images[:IMAGES].copy(), data.test.labels[:IMAGES]
    mean, std = normalization.of(stage.params.model.normalize, data.mean, data.std)
    pixels, truth = torch.from_numpy(images), torch.from_numpy(labels.copy())
    samples = Samples(pixels, truth, Normalize(mean, std, torch.device("cpu")))
    networks, needed = {}, ["numpy", "pillow", "onnxruntime"]
    for role, row in rows.items():
        chosen = card[role]["chosen"]
        file = deploy / chosen["file"]
        chosen["onnx"] = about = made_runnable(stage, row, file, samples, data.classes)
        if about["file"]:
            networks[about["file"]] = row.weight_bits < 32 and file.suffix == paths.ONNX
        needed += ["constriction"] * (file.suffix == paths.PACKED)
        needed += [chosen["engine"]] * (chosen["engine"] == predict.OPENVINO)
    # It says in which engine a network is executed.
    outputs.write_json(deploy / paths.MODEL_CARD, card)
    if networks:
        sample.write(deploy, networks, images, labels)
    for unpacked in deploy.glob(f"*{paths.UNPACKED}"):
        unpacked.unlink()
    for program in (predict, unpack):
        shutil.copyfile(program.__file__, deploy / Path(program.__file__).name)
    pins = [f"{name}=={metadata.version(name)}\n" for name in dict.fromkeys(needed)]
    outputs.write_text(deploy / paths.REQUIREMENTS, "".join(pins))
    outputs.write_text(
        deploy / paths.LABELS, "".join(f"{' '.join(name.split())}\n" for name in data.classes)
    )


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
    files = copied(choices, deploy)
    hashes = {role: hashlib.sha256(file.read_bytes()).hexdigest() for role, file in files.items()}
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
    fill(stage, deploy, card, {role: choices[role].candidate.shipped for role in files})
    page = card_page.render(card, deploy, len(candidates), selection_file.of_engine(selected))
    outputs.write_text(deploy / paths.CARD_PAGE, page)


if __name__ == "__main__":
    run_stage(main)
