"""Runs as reports/ keeps them, with accuracies that a test chooses."""

from dataclasses import asdict

import pandas as pd
from made_up import row

from stages.lib.analysis import committed
from stages.lib.core import methods, outputs, paths
from stages.lib.core.records import COLUMNS, LATENCY

POINTS = (0.4, 0.8)
ACCURACIES = {
    "baseline": 0.95, "uniform_finetune": 0.6, "finetune": 0.94, "iterative": 0.945,
    "structured_layer_finetune": 0.9, "structured_global_finetune": 0.88, "affine_tensor": 0.95,
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
# What was timed: method, sparsity, engine, device, and how many times as long as the baseline.
TIMED = (
    ("baseline", 0.0, "torch", "cpu", 1.0), ("baseline", 0.0, "torch float16", "cpu", 4.0),
    ("baseline", 0.0, "torch", "cuda", None), ("global", 0.8, "torch", "cpu", 1.0),
    ("structured_layer", 0.4, "torch", "cpu", 0.7), ("structured_layer", 0.8, "torch", "cpu", 0.5),
    ("resnet152", 0.0, "torch", "cpu", 9.0),
)  # fmt: skip


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
            bits = 8 if method == "affine_tensor" else 32
            for point, value in zip(where, values, strict=True):
                accuracy = min(1.0, max(0.0, value + wobble.get(seed, 0)))
                about = {"bits": bits, "bytes_on_disk": size * bits // 32}
                rows.append(asdict(row(seed, method, point, accuracy, **about)))
    latencies = [
        dict.fromkeys(LATENCY) | {
            "seed": seed, "method": method, "engine": engine, "target_sparsity": point,
            "weight_bits": 32, "device": device, "batch_size": size, "threads": 2,
            "latency_ms": factor and size * factor * time, "latency_iqr_ms": factor and iqr,
            "repetitions": 9,
        }
        for seed in seeds
        for method, point, engine, device, factor in TIMED
        for size in (1, 64)
    ]  # fmt: skip
    manifest = committed.Manifest(
        seeds=list(seeds), model=model or {"name": "convnet", "width": 16}, data=meta,
        hardware=machine,
    )  # fmt: skip
    return committed.Run(manifest, pd.DataFrame(rows), pd.DataFrame(latencies))


def write(run, root):
    """Writes a run's reports/ below `root`, in the format of the stages."""

    def put(stage, seed, columns, lines):
        file = root / paths.reported(paths.stage_directory(stage, seed) / paths.ROWS)
        outputs.write_csv(file, columns, lines)

    stages = run.rows.method.map(lambda name: methods.METHODS[name].stage)
    for (stage, seed), rows in run.rows.groupby([stages, "seed"]):
        put(stage, seed, list(COLUMNS), rows.to_dict("records"))
    latencies = run.latencies.astype(object).where(run.latencies.notna(), None)
    put("latency_bench", None, LATENCY, latencies.to_dict("records"))
    outputs.write_json(root / paths.RUNS / paths.MANIFEST, run.manifest.model_dump())
    outputs.write_json(root / paths.METRICS, {})
