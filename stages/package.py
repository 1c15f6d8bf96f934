"""Puts the smallest file and the fastest network that meet the budgets into one folder, with a
card that says what they are.
"""

import hashlib
import shutil
import sys
from importlib import metadata
from pathlib import Path

from stages.lib.analysis import model_card, selection, timings
from stages.lib.analysis.selection import Budgets
from stages.lib.analysis.timings import Timing
from stages.lib.core import hardware, outputs, paths, prepared, records
from stages.lib.core.errors import UserError
from stages.lib.core.params import NO_LIMIT
from stages.lib.core.records import Row
from stages.lib.core.stage import run_stage

# controls measures networks too, but keeps none of their files.
KEEPING = (
    "train_baseline", "finetune", "iterative_prune", "equal_budget", "structured_prune",
    "int_quantize", "compress", "onnx_bench",
)  # fmt: skip


def rows_of(seeds: list[int]) -> dict[str, list[Row]]:
    """The rows of all seeds, by stage."""
    return {
        stage: [
            row
            for seed in seeds
            for row in records.read(paths.stage_directory(stage, seed) / paths.ROWS)
        ]
        for stage in KEEPING
    }


def timings_of(seeds: list[int]) -> dict[str, Timing]:
    """The latencies of one image, of all seeds, by file."""
    found: dict[str, Timing] = {}
    for seed in seeds:
        found |= timings.read(paths.stage_directory("onnx_latency", seed) / paths.ROWS, 1)
    return found


def budgets_of(options) -> Budgets:
    """The budgets that params.yaml sets."""
    most = (options.max_bytes, options.max_latency_ms)
    return Budgets(
        options.max_accuracy_drop, *(None if value == NO_LIMIT else value for value in most)
    )


def main(params) -> None:
    seeds, budgets = params.seeds, budgets_of(params.package)
    meta = prepared.read_meta(paths.PREPARED)
    try:
        candidates = selection.collect(rows_of(seeds), timings_of(seeds), seeds)
    except ValueError as error:
        file = paths.stage_directory("train_baseline", seeds[0]) / paths.ROWS
        raise UserError(f"{file}: {error}; {records.REMEDY}") from None
    choices = {
        role: selection.choose(candidates, role, budgets, meta["images"]["validation"])
        for role in (selection.SMALLEST, selection.FASTEST)
    }
    run = model_card.Run(
        seeds=seeds,
        dense=next(one for one in candidates if one.rows[0].method == selection.BASELINE),
        settings={
            name: dict(value) for name, value in vars(params).items() if not isinstance(value, list)
        },
        meta=meta,
        machine=hardware.read(paths.HARDWARE),
        onnxruntime=metadata.version("onnxruntime"),
        confidence=params.report.confidence,
        timed=1 in params.onnx_bench.batch_sizes,
    )
    with outputs.whole_directory(paths.DEPLOY) as directory:
        hashes = {}
        for role, choice in choices.items():
            if choice.candidate is None:
                print(f"package: {role}: {choice.reason}", file=sys.stderr)
                continue
            source = Path(choice.candidate.shipped.model)
            copied = directory / paths.deployed_name(role, source)
            # Not its permissions: what DVC has put into its cache is read-only.
            shutil.copyfile(source, copied)
            hashes[role] = hashlib.sha256(copied.read_bytes()).hexdigest()
        card = model_card.describe(choices, hashes, budgets, run)
        outputs.write_json(directory / paths.MODEL_CARD, card)


if __name__ == "__main__":
    run_stage(
        main,
        reads=[
            "seeds", "compute", "data", "model", "training", "train_baseline", "finetune",
            "iterative_prune", "equal_budget", "structured_prune", "compress", "int_quantize",
            "onnx_bench", "package", "report",
        ],
    )  # fmt: skip
