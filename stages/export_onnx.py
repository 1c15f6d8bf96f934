"""Writes ONNX files in float32 and static int8, and measures their accuracy as executed in
every engine.

Nothing is timed here, so that the same params give the same bytes.
"""

from pathlib import Path

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import engines, hardware, outputs, paths, records
from stages.lib.core.methods import METHODS
from stages.lib.core.params import ALL


def sources(context) -> list:
    """The baseline, the sparsest fine-tuned network, and fine-tuned networks with fewer filters."""
    from stages.lib.engines.onnx_files import Source
    from stages.lib.models import checkpoints

    options, seed = context.params.export_onnx, context.seed
    scopes, sparsities = options.structured_scopes, options.structured_sparsities
    chosen = [
        row
        for row in context.rows("structured_prune", seed)
        if METHODS[row.method].trained
        and (scopes == ALL or METHODS[row.method].scope in scopes)
        and (sparsities == ALL or row.target_sparsity in sparsities)
    ]
    rows = [*context.rows("train_baseline", seed), *context.rows("finetune", seed)[-1:], *chosen]
    name = context.params.model.name
    return [Source(row, checkpoints.load_model(Path(row.model), network=name)) for row in rows]


def exported(context) -> None:
    from stages.lib.engines import onnx_files, onnx_int8
    from stages.lib.evaluation import device

    options, threads = context.params.export_onnx, context.params.compute.threads
    # The files are for a CPU, whatever device the networks were trained on.
    context.device = device.configure("cpu", threads)
    images = onnx_files.calibration_samples(context.data, options.calibration_images, context.seed)
    bits = onnx_int8.weight_bits(options.weight_bits, hardware.read(paths.HARDWARE))
    improvements = () if options.improvements == "none" else options.improvements
    max_drop = options.max_int8_drop if options.keep_float == "auto" else onnx_files.NO_BUDGET
    int8 = onnx_files.Int8(bits, options.percentile, improvements, max_drop)
    versions = engines.read(paths.ENGINES)
    least = options.least_agreement
    files = onnx_files.Collection(context.results, images, int8, threads, versions, least)
    files.add_all(sources(context), options.calibration)
    outputs.write_csv(context.directory / paths.AGREEMENT, records.AGREEMENT, files.agreements)
    outputs.write_csv(context.directory / paths.INT8_LAYERS, records.LAYER_NOISE, files.layers)


def arms(params) -> list[Arm]:
    return [Arm("all files", exported)]


if __name__ == "__main__":
    run_arms(arms)
