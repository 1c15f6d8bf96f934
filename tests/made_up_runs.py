"""Runs as reports/ keeps them, with accuracies that a test chooses."""

import dataclasses

import pandas as pd

from stages.lib.analysis import committed, manifest
from stages.lib.core import outputs, paths
from stages.lib.core.records import COLUMNS, FORMAT, LATENCY

POINTS = (0.4, 0.8)
ACCURACIES = {
    "baseline": 0.95, "global": 0.6, "finetune": 0.94, "iterative": 0.945,
    "structured_layer_finetune": 0.9, "structured_global_finetune": 0.88, "affine_tensor": 0.95,
}  # fmt: skip
STAGES = {
    "baseline": "train_baseline", "global": "global_prune", "finetune": "finetune",
    "iterative": "iterative_prune", "structured_layer_finetune": "structured_prune",
    "structured_global_finetune": "structured_prune", "affine_tensor": "int_quantize",
}  # fmt: skip
MACHINE = {
    "system": "Linux", "machine": "x86_64", "cpu": "a CPU", "isa": ["avx2"], "cores": 2,
    "gpus": [], "python": "3.11.0", "torch": "2.0", "torchvision": "0.1",
}  # fmt: skip
META = {
    "source": "digits", "checksum": "c0ffee", "classes": ["a", "b"],
    "images": {"train": 100, "validation": 10_000, "test": 10_000}, "image_shape": [1, 8, 8],
}  # fmt: skip
# How far a seed's accuracy is from the mean.
WOBBLE = {0: -0.002, 1: 0.003, 2: -0.001}


def row(seed, method, point, accuracy, size):
    return {
        "seed": seed, "method": method, "layer": "all",
        "weight_bits": 8 if method == "affine_tensor" else 32, "target_sparsity": point,
        "sparsity": point, "parameters": 10, "nonzero_parameters": 10, "macs": 10,
        "extra_epochs": 0, "validation_accuracy": accuracy, "test_accuracy": accuracy,
        "bytes_on_disk": size, "test_top5": None, "model": "",
    }  # fmt: skip


def latency(seed, method, point, time, iqr):
    return dict.fromkeys(LATENCY) | {
        "seed": seed, "method": method, "engine": "torch", "target_sparsity": point,
        "weight_bits": 32, "device": "cpu", "batch_size": 1, "threads": 2, "latency_ms": time,
        "latency_iqr_ms": iqr, "repetitions": 9,
    }  # fmt: skip


def of_format(device, dtype, time):
    return dict.fromkeys(FORMAT) | {
        "network": "baseline", "device": device, "dtype": dtype, "batch_size": 1,
        "latency_ms": time, "latency_iqr_ms": None if time is None else 0.1,
    }  # fmt: skip


def a_run(
    accuracies=ACCURACIES, seeds=(0, 1, 2), points=POINTS, size=4000, time=2.0, iqr=0.05,
    wobble=WOBBLE, meta=META, machine=MACHINE, model=None,
):  # fmt: skip
    """accuracies: by method, a number, or one for each of `points`; wobble: by seed, what is added
    to them all.
    """
    rows = []
    for seed in seeds:
        for method, values in accuracies.items():
            where = (0.0,) if method in ("baseline", "affine_tensor") else points
            values = values if isinstance(values, tuple) else (values,) * len(where)
            bytes_ = size // 4 if method == "affine_tensor" else size
            rows += [
                row(
                    seed,
                    method,
                    point,
                    round(min(1.0, max(0.0, value + wobble.get(seed, 0))), 6),
                    bytes_,
                )
                for point, value in zip(where, values, strict=True)
            ]
    timed = [
        latency(seed, method, point, factor * time, iqr)
        for seed in seeds
        for method, point, factor in (
            ("baseline", 0.0, 1.0), ("global", 0.8, 1.0), ("structured_layer", 0.8, 0.5),
        )
    ]  # fmt: skip
    formats = [
        of_format(device, dtype, factor * time if device == "cpu" else None)
        for device in ("cpu", "cuda")
        for dtype, factor in (("float32", 1.0), ("float16", 4.0))
    ]
    return committed.Run(
        manifest.describe(seeds, model or {"name": "convnet", "width": 16}, meta, machine),
        pd.DataFrame(rows),
        pd.DataFrame(timed),
        pd.DataFrame(formats),
    )


def write(run, root):
    """Writes a run's reports/ below `root`, in the format of the stages."""
    seeds = run.manifest.seeds

    def put(stage, seed, columns, lines):
        file = root / paths.reported(paths.stage_directory(stage, seed) / paths.ROWS)
        outputs.write_csv(file, columns, lines)

    for stage in set(STAGES.values()):
        methods = [method for method in STAGES if STAGES[method] == stage]
        rows = run.rows[run.rows.method.isin(methods)]
        for seed in seeds if len(rows) else ():
            put(stage, seed, list(COLUMNS), rows[rows.seed == seed].to_dict("records"))
    for seed in seeds:
        lines = run.latencies[run.latencies.seed == seed]
        put("latency_bench", seed, LATENCY, lines.to_dict("records"))
    formats = run.formats.astype(object).where(run.formats.notna(), None)
    put("dtype_bench", None, FORMAT, formats.to_dict("records"))
    outputs.write_json(root / paths.RUNS / paths.MANIFEST, dataclasses.asdict(run.manifest))
    outputs.write_json(root / paths.METRICS, {})
