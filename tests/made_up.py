"""A run made up for tests: tables and predictions whose truth is known."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stages.lib.analysis.evidence import Evidence
from stages.lib.analysis.predictions import Key
from stages.lib.core.records import Row

SEEDS = (0, 1, 2)
IMAGES = 1000
CLASSES = 10
DTYPES = ("float32", "float16", "bfloat16")


def row(seed, method, target, accuracy, layer=".all", bits=32, **other):
    values = {
        "sparsity": target, "parameters": 1000, "nonzero_parameters": 900, "macs": 5000,
        "extra_epochs": 5 * any(part in method for part in ("tune", "iterative", "long")),
        "validation_accuracy": accuracy, "test_accuracy": accuracy, "bytes_on_disk": 4000,
    }  # fmt: skip
    return Row(
        seed=seed, method=method, layer=layer, weight_bits=bits, target_sparsity=target,
        **(values | other),
    )  # fmt: skip


def right(accuracies: Sequence[float], images: int = IMAGES) -> np.ndarray:
    """bool [seeds, images]: the more accurate network is right wherever the other is, so that two
    accuracies differ on as few images as they can.
    """
    counts = np.array([round(value * images) for value in accuracies])
    return np.arange(images) < counts[:, None]


def quantized_layers(ratio=1.0, seeds=(0, 1), unit=1.0):
    """Two layers at 8 and 16 bits whose error is `unit` × 4^−bits, `ratio` times S²/12."""
    return pd.DataFrame(
        {
            "seed": seed, "layer": layer, "scheme": scheme, "granularity": "tensor", "bits": bits,
            "scale_least": 0.01, "scale_most": 0.01, "zero_point_least": 0, "zero_point_most": 0,
            "mse": unit * factor * 4.0**-bits, "theory": unit * factor * 4.0**-bits / ratio,
            "ratio": ratio,
        }
        for seed in seeds for scheme in ("affine", "symmetric")
        for layer, factor in (("conv|1", 1.0), ("fc", 2.0)) for bits in (8, 16)
    )  # fmt: skip


def formats(latency=(1.0, 9.0, 2.0), gpu=None, sizes=(4000, 2000, 2000), drop=0.0, spread=0.1):
    """Latencies of float32, float16, bfloat16; `gpu` None where there is no GPU."""
    lines = []
    for network in ("baseline", "resnet152"):
        for device, times in (("cpu", latency), ("cuda", gpu)):
            for index, name in enumerate(DTYPES):
                lines.append(
                    {
                        "network": network, "image_shape": "1×8×8", "device": device,
                        "dtype": name, "batch_size": 1, "parameters": 1000,
                        "bytes_on_disk": 700 + sizes[index], "tensor_bytes": sizes[index],
                        "threads": 2,
                        "accuracy": 0.9 - drop * (index > 0)
                        if network == "baseline" and times else math.nan,
                        "agreement": math.nan, "agreement_images": math.nan,
                        "latency_ms": times[index] if times else math.nan,
                        "latency_iqr_ms": spread if times else math.nan,
                        "repetitions": 10 if times else 0, "peak_memory_bytes": math.nan,
                        "note": "" if times else "no CUDA device",
                    }
                )  # fmt: skip
    return pd.DataFrame(lines)


# Test accuracy by method and target sparsity: a run that shows every effect there is to show.
GOOD: dict[str, dict[float, float]] = {
    "baseline": {0.0: 0.95},
    "random_uniform": {0.4: 0.3, 0.8: 0.12},
    "random_global": {0.4: 0.3, 0.8: 0.12},
    "uniform": {0.4: 0.6, 0.8: 0.3},
    "global": {0.4: 0.8, 0.8: 0.5},
    "baseline_finetune": {0.0: 0.8},
    "random_global_finetune": {0.4: 0.7, 0.8: 0.6},
    "uniform_finetune": {0.4: 0.88, 0.8: 0.8},
    "finetune": {0.4: 0.92, 0.8: 0.88},
    "iterative": {0.4: 0.98, 0.8: 0.97},
    "baseline_long": {0.0: 0.97},
    "finetune_long": {0.4: 0.94, 0.8: 0.91},
    "structured_layer": {0.4: 0.4, 0.8: 0.15},
    "structured_global": {0.4: 0.45, 0.8: 0.17},
    "structured_layer_finetune": {0.4: 0.8, 0.8: 0.6},
    "structured_global_finetune": {0.4: 0.82, 0.8: 0.62},
}


def evidence(
    accuracy: Mapping[str, Mapping[float, float | Sequence[float]]] = GOOD,
    seeds: Sequence[int] = SEEDS,
    *,
    images: int = IMAGES,
    columns: Mapping[tuple[str, float], Mapping[str, object]] | None = None,
    **other,
) -> Evidence:
    """What a run leaves in which methods have these accuracies: one for all seeds, or one of each.

    columns: what is to be otherwise in the rows of a method and sparsity; other: fields of
    Evidence.
    """
    rows, correct = [], {}
    for method, points in accuracy.items():
        for sparsity, value in points.items():
            values = [value] * len(seeds) if np.isscalar(value) else list(value)
            correct[Key(method, sparsity)] = right(values, images)
            changed = (columns or {}).get((method, sparsity), {})
            rows += [
                row(seed, method, sparsity, one, **changed)
                for seed, one in zip(seeds, values, strict=True)
            ]
    fields = {
        "rows": pd.DataFrame(rows), "layers": quantized_layers(), "formats": formats(),
        "correct": correct, "sparsity": 0.8, "confidence": 0.95, "tolerance": 0.005,
        "isa": ("avx2", "f16c"), "chance": 1 / CLASSES,
    }  # fmt: skip
    return Evidence(**(fields | other))
