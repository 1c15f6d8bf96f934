"""Files for ONNX Runtime in float32 and static int8, and what they answer when they are executed.

Nothing is timed here, so that the same params give the same bytes.
"""

from pathlib import Path
from typing import get_args

import torch

from stages.lib.core import hardware, outputs, paths, records
from stages.lib.core.params import ALL, Scope
from stages.lib.core.stage import run_stage
from stages.lib.engines import onnx_files, onnx_int8
from stages.lib.engines.onnx_files import Source
from stages.lib.evaluation import device
from stages.lib.evaluation.context import Context
from stages.lib.models import checkpoints


def sources(seed: int, options) -> list[Source]:
    """The baseline, the sparsest fine-tuned network, and the fine-tuned ones with fewer filters."""
    baseline, finetuned, structured = (
        records.read(paths.stage_directory(stage, seed) / paths.ROWS)
        for stage in ("train_baseline", "finetune", "structured_prune")
    )
    scopes, sparsities = options.structured_scopes, options.structured_sparsities
    scopes = get_args(Scope) if scopes == ALL else scopes
    chosen = [f"structured_{scope}_finetune" for scope in scopes]
    small = [
        row
        for row in structured
        if row.method in chosen and (sparsities == ALL or row.target_sparsity in sparsities)
    ]
    cpu = torch.device("cpu")
    return [
        Source(row, device.place(checkpoints.load_model(Path(row.model)), cpu))
        for row in (baseline[0], finetuned[-1], *small)
    ]


def main(context: Context) -> None:
    options = context.params.export_onnx
    # What is deployed here runs on a CPU, whatever trained it.
    context.device = device.configure("cpu", context.params.compute.threads)
    int8 = onnx_files.Int8(
        onnx_int8.weight_bits(options.weight_bits, hardware.read(paths.HARDWARE)),
        onnx_files.calibration_images(context.data, options.calibration_images, context.seed),
        options.percentile,
    )
    files = onnx_files.Collection(context.results, int8, context.params.compute.threads)
    files.add_all(sources(context.seed, options), options.calibration)
    outputs.write_csv(context.directory / paths.AGREEMENT, records.AGREEMENT, files.agreements)


if __name__ == "__main__":
    run_stage(main, Context)
