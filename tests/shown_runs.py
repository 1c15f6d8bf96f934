"""Runs for the reports to show, made up: with everything, with little, and with much of all."""

import dataclasses
import math
from functools import cache
from itertools import product

import pandas as pd

from stages.lib.analysis.verdicts import VERDICTS, Finding
from stages.lib.core import methods, records
from stages.lib.core.records import Row
from stages.lib.report import figures
from stages.lib.report.run import Run

POINTS = (0.4, 0.8, 0.95)
# Test accuracy at POINTS; the baseline has 0.95.
ACCURACIES = {
    "random_uniform": (0.6, 0.2, 0.1), "random_global": (0.5, 0.15, 0.1),
    "uniform": (0.8, 0.3, 0.1), "global": (0.94, 0.5, 0.1),
    "random_global_finetune": (0.93, 0.9, 0.8), "uniform_finetune": (0.94, 0.92, 0.85),
    "finetune": (0.951, 0.945, 0.9), "iterative": (0.952, 0.95, 0.93),
    "finetune_long": (0.951, 0.948, 0.92),
    "structured_layer": (0.4, 0.2, 0.1), "structured_global": (0.5, 0.2, 0.1),
    "structured_layer_finetune": (0.945, 0.93, 0.9),
    "structured_global_finetune": (0.948, 0.935, 0.91),
}  # fmt: skip
FIRST_ARMS = (
    "uniform", "global", "finetune", "iterative", "structured_layer", "structured_global",
    "structured_layer_finetune", "structured_global_finetune",
)  # fmt: skip
LAYERS = ("conv1", "conv2", "classifier")
BITS = (2, 4, 8, 16)
# What a user's data may be called.
HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "a & b", "\"quoted'",
    "{{ 7 * 7 }}", "--><!--", "line\u2028separator", "naïve 数字 🙂", "two\n\n# lines",
    "a|b", "[click](javascript:alert(3))", "https://example.com", "*bold* `code` ~~gone~~",
)  # fmt: skip
# Latency of one image in ms, of what is executed: method, engine, weight bits, sparsity.
TIMED = {
    ("baseline", "torch", 32, 0.0): 2.0, ("baseline", "torch bfloat16", 32, 0.0): 5.0,
    ("global", "torch", 32, 0.95): 2.02, ("structured_layer", "torch", 32, 0.8): 1.2,
    ("structured_global_finetune", "torch", 32, 0.8): 1.0,
    ("onnx_baseline_float32", "onnxruntime", 32, 0.0): 1.0,
    ("onnx_baseline_int8", "onnxruntime", 8, 0.0): 0.4,
    ("onnx_finetune_float32", "onnxruntime", 32, 0.95): 1.02,
    ("onnx_structured_global_finetune_int8", "onnxruntime", 8, 0.8): 0.1,
}  # fmt: skip
PACKED = {("packed", 10.0): 4_100, ("packed", 50.0): 820, ("packed_quantized", 10.0): 4_100}

FINDINGS = tuple(
    Finding(
        id=f"finding_{verdict.replace(' ', '_')}",
        title=f"Something is {verdict}",
        course="better, 0–80 %",
        rule="the interval of the difference lies above zero",
        verdict=verdict,
        why="+1.2 [0.4, 2.0] percentage points",
        here=("80 %: global 44.9, uniform 18.2",),
        evidence=(
            {
                "sparsity": 0.8, "one": "global", "other": "finetune_long", "difference": -1 / 3,
                **{f"some_other_number_{index}": index / 7 for index in range(12)}, "note": None,
            },
            {"seeds": 3},
        ),
    )
    for verdict in VERDICTS
)  # fmt: skip


def a_row(seed, method, target, accuracy, layer=".all", bits=32, size=40_000, **other):
    """A row of a network with 10,000 parameters; of which a share of `target` is gone."""
    left = 1 - target
    values = {
        "sparsity": target, "parameters": 10_000, "macs": round(50_000 * left) or 1,
        "nonzero_parameters": round(10_000 * left) or 1, "extra_epochs": 5 * ("tune" in method),
        "validation_accuracy": accuracy, "test_accuracy": accuracy, "bytes_on_disk": size,
    }  # fmt: skip
    return Row(
        seed=seed, method=method, layer=layer, weight_bits=bits, target_sparsity=target,
        **(values | other),
    )  # fmt: skip


def _rows(seed, names, layers):
    wobble = 0.002 * seed
    rows = [a_row(seed, "baseline", 0.0, 0.95 + wobble)]
    for name, (place, point) in product(names, enumerate(POINTS)):
        small = methods.METHODS[name].family == methods.STRUCTURED
        size = round(40_000 * (1 - point)) if small else 40_000
        rows.append(a_row(seed, name, point, ACCURACIES[name][place] - wobble, size=size))
    if "finetune_long" in names:
        rows += [
            a_row(seed, name, 0.0, 0.952 + wobble)
            for name in ("baseline_finetune", "baseline_long")
        ]
    rows += [
        a_row(seed, "layer_alone", point, 0.95 - point / (2 + index % 3), layer=layer)
        for (index, layer), point in product(enumerate(layers), POINTS)
    ]
    rows += [
        a_row(
            seed, method.name, 0.0, 0.95 - 0.5 / 2**bits, bits=bits,
            size=10_500 if bits <= 8 else 20_500,
        )
        for method, bits in product(methods.of_family(methods.INTEGER), BITS)
    ]  # fmt: skip
    rows += [
        a_row(
            seed, method, 0.0, 0.95 - factor / 2000, bits=5, size=size, times_smaller=factor,
            sparsity=0.6, model=f"{method}-{factor:g}x.packed",
        )
        for (method, factor), size in PACKED.items()
    ]  # fmt: skip
    return rows + [
        a_row(seed, method, sparsity, 0.94, bits=bits, size=12_000, model=f"{method}.onnx")
        for method, engine, bits, sparsity in TIMED
        if engine == "onnxruntime"
    ]


def _latencies(seeds, names):
    """All of batch 1, and of 64 those whose latency is known: one ONNX file could not be run."""
    lines = []
    for seed, batch, (key, time) in product(seeds, (1, 64), TIMED.items()):
        method, engine, bits, sparsity = key
        if method in ACCURACIES and method not in names:
            continue
        known = method != "onnx_baseline_float32" or batch == 1
        lines.append(
            {
                "seed": seed, "method": method, "engine": engine, "target_sparsity": sparsity,
                "weight_bits": bits, "device": "cpu", "batch_size": batch, "threads": 2,
                "isa": "AVX-512 VNNI", "latency_ms": time * batch**0.5 if known else math.nan,
                "latency_iqr_ms": 0.01 * time if known else math.nan, "repetitions": 9 * known,
                "model": "", "note": None if known else "could not be run",
            }
        )  # fmt: skip
    return pd.DataFrame(lines, columns=list(records.LATENCY))


def _formats(gpu):
    return pd.DataFrame(
        {
            "network": network, "image_shape": "1×8×8", "device": device, "dtype": dtype,
            "parameters": 10_000, "bytes_on_disk": size, "tensor_bytes": size,
            "accuracy": 0.95 if network == "baseline" and (gpu or device == "cpu") else math.nan,
            "agreement": math.nan, "agreement_images": math.nan, "peak_memory_bytes": math.nan,
            "note": None if gpu or device == "cpu" else "no CUDA device",
        }
        for network, device in product(("baseline", "resnet152"), ("cpu", "cuda"))
        for dtype, size in (("float32", 40_000), ("float16", 20_000), ("bfloat16", 20_000))
    )  # fmt: skip


def a_choice(words, method, size, milliseconds=None, loss=0.0, ranked=True, file="x.packed"):
    """A network of selection.json; the baseline takes 40,000 bytes and 2 ms."""
    return {
        "name": words, "words": words, "method": method, "file": file, "bytes": size,
        "times_smaller": 40_000 / size,
        "validation_loss": {"estimate": loss, "low": loss - 0.01, "high": loss + 0.01},
        "test": {"accuracy": 0.95 - loss, "low": 0.93 - loss, "high": 0.97 - loss},
        "latency_ms": milliseconds, "latency_iqr_ms": milliseconds and 0.01,
        "engine": milliseconds and "torch", "batch_size": milliseconds and 1,
        "threads": milliseconds and 2,
        "speedup": 2.0 / milliseconds if milliseconds and ranked else None,
    }  # fmt: skip


BASELINE = a_choice("dense baseline", "baseline", 40_000, 2.0, file="baseline.safetensors")
SMALLEST = a_choice("pruned and packed, 50 ×", "packed_pruned", 820, loss=0.004)
FASTEST = a_choice("ONNX Runtime int8", "onnx_baseline_int8", 12_000, 0.4, file="x.onnx")
SELECTION = {
    "validation_images": 300, "test_images": 500, "seeds": [0, 1, 2], "baseline": BASELINE,
    "budgets": [
        {
            "losses": [0.0, 0.005], "note": "300 images cannot tell these apart (± 1.0)",
            "smallest": BASELINE, "fastest": None,
        },
        {"losses": [0.02], "note": "", "smallest": SMALLEST, "fastest": FASTEST},
    ],
    "recommended": {
        "smallest": {"choice": SMALLEST, "reason": "the smallest of 3", "nearest": []},
        "fastest": {
            "choice": None, "reason": "no network meets it", "nearest": [FASTEST | {"misses": {}}],
        },
    },
}  # fmt: skip


def a_run(seeds=(0, 1, 2), names=tuple(ACCURACIES), layers=LAYERS, classes=("a", "b"), gpu=False):
    """A run with these methods. classes: names; the first is that of the data's folder too."""
    rows = [row for seed in seeds for row in _rows(seed, names, layers)]
    of_layers = list(product(seeds, layers))
    return Run(
        seeds=list(seeds),
        rows=pd.DataFrame(rows).astype({"test_top5": float}),
        best=pd.DataFrame(
            {"seed": seed, "layer": layer, "sparsity": 0.4} for seed, layer in of_layers
        ),
        filters=pd.DataFrame(
            {"layer": layer, "prunable": "yes", "reason": math.nan} if layer != layers[-1]
            else {"layer": layer, "prunable": "no", "reason": "its outputs are the classes"}
            for _, layer in of_layers
        ),
        layers=pd.DataFrame(
            {
                "seed": seed, "layer": layer, "scheme": scheme, "granularity": granularity,
                "bits": bits, "scale_most": 0.01, "zero_point_most": 0, "mse": 1.01 * 4.0**-bits,
                "theory": 4.0**-bits, "ratio": 1.01,
            }
            for (seed, layer), scheme, granularity, bits in product(
                of_layers, ("affine", "symmetric"), ("tensor", "channel"), BITS
            )
        ),
        agreements=pd.DataFrame(
            {"method": row.method, "target_sparsity": row.target_sparsity,
             "weight_bits": row.weight_bits, "agreement": 0.99}
            for row in rows if row.model.endswith(".onnx")
        ),
        latencies=_latencies(seeds, names),
        sizes=pd.DataFrame(
            {"method": row.method, "target_sparsity": 0.0, "weight_bits": 5,
             "times_smaller": row.times_smaller, "dense_bytes": 40_000, "nonzero_bytes": 5_000,
             "index_value_bytes": 9_000, "entropy_bytes": 4_100, "zip_bytes": 12_000,
             "file_bytes": row.bytes_on_disk}
            for row in rows if row.model.endswith(".packed")
        ),
        formats=_formats(gpu),
        inventory=pd.DataFrame(
            {"kind": "Conv2d", "count": 2, "prunable": prunable}
            for prunable in ("yes", "no") for _ in layers
        ),
        curves=pd.DataFrame(
            {"seed": seed, "epoch": epoch, "train_accuracy": 0.3 * epoch,
             "validation_accuracy": 0.29 * epoch}
            for seed in seeds for epoch in (1, 2, 3)
        ),
        selection=SELECTION | {"seeds": list(seeds)},
        params={
            "seeds": list(seeds), "data": {"root": classes[0], "color": "auto"},
            "model": {"name": "convnet", "weights": "none"},
            "layerwise_sweep": {"max_accuracy_drop": 0.01},
            "package": {"max_accuracy_drop": 0.01, "max_bytes": 1000, "max_latency_ms": "none"},
            "report": {"sparsity": 0.8, "confidence": 0.95, "tolerance": 0.01},
        },
        meta={
            "images": {"train": 1000, "validation": 300, "test": 500}, "image_shape": [1, 8, 8],
            "classes": list(classes), "checksum": "c0ffee", "source": classes[0],
            "unreadable_count": 0,
        },
        hardware={
            "cpu": "a CPU", "machine": "m", "cores": 2, "isa": ["avx2"],
            "gpus": ["a GPU"] if gpu else [], "system": "s", "python": "3", "torch": "2",
            "torchvision": "0",
        },
        chance=0.5,
    )  # fmt: skip


def much():
    """60 layers with long and hostile names, 100 classes, a GPU, one seed."""
    layers = [
        *HOSTILE,
        *(f"backbone.features.stage{index}.block.attention.projection" for index in range(47)),
    ]
    classes = [*HOSTILE, *(f"a class with a rather long name, {index}" for index in range(87))]
    run = a_run((7,), layers=layers, classes=classes, gpu=True)
    hostile = {"name": "nets/<b>mine</b>.py:build", "weights": "none"}
    return dataclasses.replace(run, params=run.params | {"model": hostile})


def little():
    """One seed, no structured pruning, no training of the baseline, no file to deploy."""
    names = [name for name in FIRST_ARMS if not name.startswith("structured")]
    run = a_run((0,), names)
    families = (methods.PACKED, methods.ONNX)
    deployed = [method.name for method in methods.of_family(*families)]
    weights = {"name": "convnet", "weights": "mine.safetensors"}
    return dataclasses.replace(
        run,
        rows=run.rows[~run.rows.method.isin(deployed)],
        latencies=run.latencies[~run.latencies.method.isin(deployed)],
        agreements=run.agreements[:0],
        curves=run.curves[:0],
        formats=run.formats[run.formats.device == "cuda"],
        params=run.params | {"model": weights},
    )


RUNS = {
    "everything": a_run,
    "before the controls": lambda: a_run(names=FIRST_ARMS),
    "much": much,
    "little": little,
}


@cache
def drawn(name):
    """One of RUNS, and its figures."""
    run = RUNS[name]()
    return run, figures.build(run)
