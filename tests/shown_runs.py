"""Runs for the pages to show, made up: with everything, with little, and with much of all."""

import dataclasses
import math
from dataclasses import dataclass

import pandas as pd

from stages.lib.core.records import Row
from stages.lib.report import markdown

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
# What a user's data may be called.
HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "a & b", "\"quoted'",
    "{{ 7 * 7 }}", "--><!--", "line\u2028separator", "naïve 数字 🙂",
)  # fmt: skip


@dataclass(frozen=True)
class AFinding:
    """What a page needs of a finding."""

    id: str
    title: str
    course: str
    rule: str
    verdict: str
    why: str
    here: tuple = ()
    evidence: tuple = ()


FINDINGS = tuple(
    AFinding(
        id=f"finding_{verdict.replace(' ', '_')}",
        title=f"Something is {verdict}",
        course="better, 0–80 %",
        rule="the interval of the difference lies above zero",
        verdict=verdict,
        why="+1.2 [0.4, 2.0] points",
        here=("80 %: global 44.9, uniform 18.2",),
        evidence=(
            {
                "sparsity": 0.8,
                "one": "global",
                "other": "finetune_long",
                "difference": -1 / 3,
                **{f"some_other_number_{index}": index / 7 for index in range(12)},
                "note": None,
            },
            {"seeds": 3},
        ),
    )
    for verdict in ("reproduced", "contradicted", "undecided", "not measured")
)


def _row(seed, method, sparsity, accuracy, layer="all", bits=32, size=40_000, **other):
    left = 1 - sparsity
    return Row(
        seed=seed, method=method, layer=layer, weight_bits=bits, target_sparsity=sparsity,
        sparsity=sparsity, parameters=10_000, nonzero_parameters=round(10_000 * left) or 1,
        macs=round(50_000 * left) or 1, extra_epochs=other.pop("extra_epochs", 0),
        validation_accuracy=accuracy, test_accuracy=accuracy, bytes_on_disk=size, **other,
    )  # fmt: skip


def _rows(seed, methods, layers):
    wobble = 0.002 * seed
    rows = [_row(seed, "baseline", 0.0, 0.95 + wobble)]
    for method in methods:
        small = method.startswith("structured")
        rows += [
            _row(
                seed, method, point, accuracy - wobble, extra_epochs=5 * ("tune" in method),
                size=round(40_000 * (1 - point)) if small else 40_000,
            )
            for point, accuracy in zip(POINTS, ACCURACIES[method], strict=True)
        ]  # fmt: skip
    if "finetune_long" in methods:
        rows += [
            _row(seed, name, 0.0, 0.952 + wobble, extra_epochs=9)
            for name in ("baseline_finetune", "baseline_long")
        ]
    rows += [
        _row(seed, "layer_alone", point, 0.95 - point / (2 + index % 3), layer=layer)
        for index, layer in enumerate(layers)
        for point in POINTS
    ]
    rows += [
        _row(
            seed, f"{scheme}_{granularity}", 0.0, 0.95 - 0.5 / 2**bits, bits=bits,
            size=10_500 if bits <= 8 else 20_500,
        )
        for scheme in ("affine", "symmetric")
        for granularity in ("tensor", "channel")
        for bits in (2, 4, 8, 16)
    ]  # fmt: skip
    return rows


def _formats(gpu):
    lines = []
    for network, size in (("baseline", 40_000), ("resnet152", 240_000_000)):
        for device in ("cpu", "cuda"):
            for index, dtype in enumerate(("float32", "float16", "bfloat16")):
                for batch in (1, 64):
                    known = device == "cpu" or gpu
                    lines.append(
                        {
                            "network": network, "image_shape": "1×8×8", "device": device,
                            "dtype": dtype, "batch_size": batch, "parameters": 10_000,
                            "bytes_on_disk": size // (1 + (index > 0)),
                            "tensor_bytes": size // (1 + (index > 0)), "threads": 2,
                            "accuracy": 0.95 if known and network == "baseline" else math.nan,
                            "agreement": math.nan, "agreement_images": math.nan,
                            "latency_ms": (1.0 + index) * batch**0.5 if known else math.nan,
                            "latency_iqr_ms": 0.1 if known else math.nan,
                            "runs": 10 if known else 0, "peak_memory_bytes": math.nan,
                            "note": "" if known else "no CUDA device",
                        }
                    )  # fmt: skip
    return pd.DataFrame(lines)


def _deployed(seeds):
    """Packed files, of which one arm goes less far, and ONNX files, one of which has no latency."""
    rows, engines, agreements, sizes = [], [], [], []
    for seed in seeds:
        for method, points in (("packed", (10.0, 50.0)), ("packed_quantized", (10.0,))):
            for factor in points:
                file = f"artifacts/compress/seed-{seed}/{method}-{factor:g}x.packed"
                size = round(41_000 / factor)
                rows.append(
                    _row(
                        seed, method, 0.0, 0.95 - factor / 2000, bits=5, size=size,
                        times_smaller=factor, extra_epochs=4, model=file,
                    )
                )  # fmt: skip
                sizes.append(
                    {
                        "seed": seed, "method": method, "target_sparsity": 0.0, "weight_bits": 5,
                        "times_smaller": factor, "dense_bytes": 40_000, "nonzero_bytes": 5_000,
                        "index_value_bytes": 9_000, "entropy_bytes": 4_100, "zip_bytes": 12_000,
                        "file_bytes": size, "model": file,
                    }
                )  # fmt: skip
        for method, bits, sparsity, relative in (
            ("baseline", 32, 0.0, 1.0), ("onnx_float32", 32, 0.0, 0.5),
            ("onnx_int8", 8, 0.0, 0.2), ("onnx_finetune_float32", 32, 0.95, 0.51),
            ("onnx_structured_global_int8", 8, 0.8, 0.05),
        ):  # fmt: skip
            file = f"artifacts/onnx_bench/seed-{seed}/{method}-{sparsity:g}.onnx"
            if method != "baseline":
                rows.append(_row(seed, method, sparsity, 0.94, bits=bits, size=12_000, model=file))
                agreements.append(
                    {
                        "seed": seed, "method": method, "target_sparsity": sparsity,
                        "weight_bits": bits, "images": 500, "largest_difference": 0.1,
                        "largest_logit": 9.0, "agreement": 0.99, "model": file,
                    }
                )  # fmt: skip
            for batch in (1, 64):
                known = method != "onnx_float32" or batch == 1
                engines.append(
                    {
                        "seed": seed, "method": method,
                        "engine": "torch" if method == "baseline" else "onnxruntime",
                        "target_sparsity": sparsity, "weight_bits": bits, "device": "cpu",
                        "batch_size": batch, "threads": 2, "isa": "AVX-512 VNNI",
                        "latency_ms": 2 * relative if known else math.nan,
                        "latency_iqr_ms": 0.01 if known else math.nan, "runs": 9 * known,
                        "relative_to_eager": relative if known else math.nan, "model": file,
                        "note": "" if known else "could not be run",
                    }
                )  # fmt: skip
    return markdown.Deployed(*map(pd.DataFrame, (rows, engines, agreements, sizes)), card={})


def a_run(seeds=(0, 1, 2), methods=tuple(ACCURACIES), layers=LAYERS, classes=("a", "b"), gpu=False):
    """A run with these methods. classes: names, of which the data's folder has the first too."""
    timed = [("baseline", 0.0), ("global", 0.95)]
    timed += [(name, p) for name in methods if name in FIRST_ARMS[4:6] for p in POINTS]
    latencies = pd.DataFrame(
        {
            "seed": seed, "method": method, "target_sparsity": point, "device": "cpu",
            "batch_size": batch, "threads": 2, "latency_ms": 2.0 - point * (method != "global"),
            "latency_iqr_ms": 0.1, "runs": 9,
            "relative_to_baseline": 1.0 - point / 2 * (method != "global"), "model": "",
        }
        for seed in seeds for batch in (1, 64) for method, point in timed
    )  # fmt: skip
    quantized = pd.DataFrame(
        {
            "seed": seed, "layer": layer, "scheme": scheme, "granularity": granularity,
            "bits": bits, "scale_least": 0.01, "scale_most": 0.01, "zero_point_least": 0,
            "zero_point_most": 0, "mse": 1.01 * 4.0**-bits, "theory": 4.0**-bits, "ratio": 1.01,
        }
        for seed in seeds for layer in layers for scheme in ("affine", "symmetric")
        for granularity in ("tensor", "channel") for bits in (2, 4, 8, 16)
    )  # fmt: skip
    return markdown.Run(
        seeds=list(seeds),
        rows=pd.DataFrame(
            row for seed in seeds for row in _rows(seed, methods, layers)
        ).astype({"test_top5": float}),
        best=pd.DataFrame(
            {"seed": seed, "layer": layer, "sparsity": 0.4, "validation_accuracy": 0.9}
            for seed in seeds for layer in layers
        ),
        layers=quantized,
        formats=_formats(gpu),
        latencies=latencies,
        filters=pd.DataFrame(
            {"seed": seed, "layer": layer, "filters": 4, "coupled_with": "", "prunable": "yes",
             "reason": math.nan}
            for seed in seeds for layer in layers
        ),
        inventory=pd.DataFrame(
            {"parameter": f"{layer}.{kind}", "kind": "Conv2d", "shape": "2", "count": 2,
             "macs": 2, "prunable": "yes" if kind == "weight" else "no"}
            for layer in layers for kind in ("weight", "bias")
        ),
        network="convnet",
        weights="none",
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
        sparsity=0.8,
        max_drop=0.01,
        curves=pd.DataFrame(
            {"seed": seed, "epoch": epoch, "train_accuracy": 0.3 * epoch,
             "validation_accuracy": 0.29 * epoch}
            for seed in seeds for epoch in (1, 2, 3)
        ),
        settings={"seeds": list(seeds), "data": {"root": classes[0], "color": "auto"}},
        seconds={"prepare_data": {None: 1.5}, "finetune": dict.fromkeys(seeds, 9.25)},
        deployed=_deployed(seeds),
    )  # fmt: skip


def much():
    """60 layers with long and hostile names, 100 classes, a GPU, one seed."""
    layers = [
        *HOSTILE,
        *(f"backbone.features.stage{index}.block.attention.projection" for index in range(52)),
    ]
    classes = [*HOSTILE, *(f"a class with a rather long name, {index}" for index in range(92))]
    return dataclasses.replace(
        a_run((7,), layers=layers, classes=classes, gpu=True), network="nets/<b>mine</b>.py:build"
    )


def little():
    """One seed, no structured pruning, no training of the baseline, nothing noted of the stages."""
    methods = [name for name in FIRST_ARMS if not name.startswith("structured")]
    run = a_run((0,), methods)
    return dataclasses.replace(
        run, curves=None, seconds={}, settings={}, weights="mine.safetensors",
        formats=run.formats[run.formats.device == "cuda"],
    )  # fmt: skip


RUNS = {
    "everything": a_run,
    "before the controls": lambda: a_run(methods=FIRST_ARMS),
    "much": much,
    "little": little,
}
