"""Files for ONNX Runtime, float32 and static int8: what they answer, and how fast, beside torch.

Files and accuracies repeat, latencies do not: they have a directory of their own.
"""

from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib import (
    checkpoints,
    device,
    engines,
    hardware,
    onnx_files,
    onnx_int8,
    outputs,
    paths,
    records,
    results,
    setting,
)
from stages.lib.cli import run_stage
from stages.lib.onnx_files import Source
from stages.lib.params import ALL, AUTO, SCOPES


def sources(seed: int, options) -> list[Source]:
    """The baseline, the sparsest fine-tuned network, and the fine-tuned ones with fewer filters."""
    baseline, finetuned, structured = (
        records.read(paths.stage_directory(stage, seed) / paths.ROWS)
        for stage in ("train_baseline", "finetune", "structured_prune")
    )
    scopes, sparsities = options.structured_scopes, options.structured_sparsities
    prefixes = {
        f"structured_{scope}_finetune": f"onnx_structured_{scope}"
        for scope in (SCOPES if scopes == ALL else scopes)
    }
    chosen = [(baseline[0], "onnx"), (finetuned[-1], "onnx_finetune")] + [
        (row, prefixes[row.method])
        for row in structured
        if row.method in prefixes and (sparsities == ALL or row.target_sparsity in sparsities)
    ]
    cpu = torch.device("cpu")
    return [
        Source(row, device.place(checkpoints.load_model(Path(row.model)), cpu), prefix)
        for row, prefix in chosen
    ]


def main(params, seed: int) -> None:
    options = params.onnx_bench
    threads = params.compute.threads if options.threads == AUTO else options.threads
    machine = hardware.read(paths.HARDWARE)
    # What is deployed here runs on a CPU, whatever trained it.
    compute = replace(params.compute, device="cpu", threads=threads)
    at = setting.load(compute, params.model, paths.PREPARED)
    _, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    networks = sources(seed, options)
    int8 = onnx_files.Int8(
        onnx_int8.weight_bits(options.weight_bits, machine),
        onnx_files.calibration_images(at.data, options.calibration_images, seed),
        options.percentile,
    )
    final = paths.stage_directory("onnx_bench", seed)
    with results.collect(final, ruler) as kept:
        files = onnx_files.Collection(kept, int8, threads)
        rows = files.add_all(networks, options.calibration)
        outputs.write_csv(kept.directory / paths.AGREEMENT, records.AGREEMENT, files.agreements)
    normalize = at.data.test.normalize
    subjects = []
    for source, exported in zip(networks, rows, strict=True):
        subjects.append(engines.of_torch(source.row, source.model, normalize))
        if options.compile and source is networks[0]:
            subjects.append(
                engines.of_compiled(source.row, source.model, normalize, options.compile_seconds)
            )
        subjects += [
            engines.of_file(row, Path(row.model).read_bytes(), threads) for row in exported
        ]
    lines = [
        line
        for size in tqdm(options.batch_sizes, "onnx_bench", leave=False, disable=None)
        for line in engines.measure(
            subjects,
            at.data.test,
            size,
            threads=threads,
            seconds=options.seconds,
            isa=hardware.kernel_isa(machine["isa"]),
        )
    ]
    with outputs.whole_directory(paths.stage_directory("onnx_latency", seed)) as directory:
        outputs.write_csv(directory / paths.ROWS, records.ENGINE_LATENCY, lines)


if __name__ == "__main__":
    run_stage(main, reads=["compute", "model", "onnx_bench"], per_seed=True)
