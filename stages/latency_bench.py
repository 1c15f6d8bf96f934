"""Times structured pruning's small networks in turns with the dense and an unstructured one."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from stages.lib import checkpoints, device, latency, outputs, paths, records, setting
from stages.lib.cli import run_stage
from stages.lib.records import Row
from stages.lib.setting import Setting


def rows_of(seed: int) -> list[Row]:
    """The baseline, the sparsest unstructured network and every structured one."""
    baseline, unstructured, structured = (
        records.read(paths.stage_directory(stage, seed) / paths.ROWS)
        for stage in ("train_baseline", "global_prune", "structured_prune")
    )
    # Fine-tuning changes no shape, hence no latency.
    kept = [row for row in structured if not row.method.endswith("_finetune")]
    return [*baseline, *unstructured[-1:], *kept]


def measure(
    at: Setting,
    rows: list[Row],
    networks: list[nn.Module],
    size: int,
    threads: int,
    seconds: float,
) -> list[dict]:
    """One line per network, in the order of `rows`: its latency for a batch of `size` test
    images.
    """
    images = at.data.test.images
    batch = at.data.test.normalize(images[torch.arange(size) % len(images)])
    with torch.inference_mode():
        found = latency.interleaved(
            [partial(network, batch) for network in networks],
            device=at.device,
            threads=threads,
            seconds=seconds,
        )
    return [
        {
            "seed": row.seed,
            "method": row.method,
            "target_sparsity": row.target_sparsity,
            "device": at.device.type,
            "batch_size": size,
            "threads": threads,
            "latency_ms": time.median_ms,
            "latency_iqr_ms": time.iqr_ms,
            "runs": time.runs,
            "relative_to_baseline": latency.relative(time, found[0]),
            "model": row.model,
        }
        for row, time in zip(rows, found, strict=True)
    ]


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    options, threads = params.latency_bench, params.compute.threads
    rows = rows_of(seed)
    networks = [device.place(checkpoints.load_model(Path(row.model)), at.device) for row in rows]
    lines = [
        line
        for size in options.batch_sizes
        for line in measure(at, rows, networks, size, threads, options.seconds)
    ]
    with outputs.whole_directory(paths.stage_directory("latency_bench", seed)) as directory:
        outputs.write_csv(directory / paths.ROWS, records.LATENCY, lines)


if __name__ == "__main__":
    run_stage(main, reads=["compute", "model", "latency_bench"], per_seed=True)
