"""Times the small networks of structured pruning against the dense and an unstructured one, side by
side.
"""

from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib import checkpoints, latency, outputs, paths, records, setting
from stages.lib.cli import run_stage


def main(params) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    options = params.latency_bench
    rows = []
    for seed in tqdm(params.seeds, "latency_bench", unit="seed", leave=False, disable=None):
        measured = [
            *records.read(paths.stage_directory("train_baseline", seed) / paths.ROWS),
            records.read(paths.stage_directory("global_prune", seed) / paths.ROWS)[-1],
            *records.read(paths.stage_directory("structured_prune", seed) / paths.ROWS),
        ]
        kept = [row for row in measured if not row.method.endswith("_finetune")]
        networks = [checkpoints.load_model(Path(row.model)).to(at.device) for row in kept]
        for size in options.batch_sizes:
            images = at.data.test.images
            batch = at.data.test.normalize(images[torch.arange(size) % len(images)])
            with torch.inference_mode():
                found = latency.interleaved(
                    [partial(network, batch) for network in networks],
                    device=at.device,
                    threads=params.compute.threads,
                    seconds=options.seconds,
                )
            rows += [
                {
                    "seed": seed,
                    "method": row.method,
                    "target_sparsity": row.target_sparsity,
                    "device": at.device.type,
                    "batch_size": size,
                    "threads": params.compute.threads,
                    "latency_ms": time.median * 1e3,
                    "latency_iqr_ms": time.iqr * 1e3,
                    "runs": time.runs,
                    "relative_to_baseline": time.median / found[0].median,
                    "model": row.model,
                }
                for row, time in zip(kept, found, strict=True)
            ]
    with outputs.whole_directory(paths.stage_directory("latency_bench")) as directory:
        outputs.write_csv(directory / paths.ROWS, records.LATENCY, rows)


if __name__ == "__main__":
    run_stage(main, reads=["seeds", "compute", "model", "latency_bench"])
