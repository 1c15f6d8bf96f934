"""Runs for the reports to show, made up: with everything, with little, and with much of all."""

import dataclasses
import math
from functools import cache
from itertools import product

import made_up
import numpy as np
import pandas as pd
from made_up_runs import MACHINE, META

from stages.lib.analysis.class_costs import Predicted
from stages.lib.analysis.verdicts import VERDICTS, Finding
from stages.lib.core import methods, records
from stages.lib.report import figures, html
from stages.lib.report.run import Run

POINTS = (0.4, 0.8, 0.95)
NAMES = tuple(method.name for method in methods.of_family(methods.UNSTRUCTURED, methods.STRUCTURED))
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
    ("onnx_baseline_int8_entropy", "onnxruntime", 8, 0.0): 0.41,
    ("onnx_baseline_int8_entropy", "openvino", 8, 0.0): 0.405,
    ("onnx_finetune_float32", "onnxruntime", 32, 0.95): 1.02,
    ("onnx_structured_global_finetune_int8", "onnxruntime", 8, 0.8): 0.1,
}  # fmt: skip
PACKED = {("packed", 10.0): 4_100, ("packed", 50.0): 820, ("packed_quantized", 10.0): 4_100}
FINDINGS = tuple(
    Finding(
        f"finding_{verdict.replace(' ', '_')}", f"Something is {verdict}", "better, 0–80 %",
        "the interval of the difference lies above zero", verdict,
        "+1.2 [0.4, 2.0] percentage points", ("80 %: global 44.9, uniform 18.2",),
        ({"one": "global", "difference": -1 / 3, "note": None,
          **{f"some_other_number_{index}": index / 7 for index in range(12)}}, {"seeds": 3}),
    )
    for verdict in VERDICTS
)  # fmt: skip


def a_row(seed, method, target, accuracy, **other):
    """A row of a network with 10,000 parameters; of which a share of `target` is gone."""
    left = 1 - target
    values = {
        "parameters": 10_000, "nonzero_parameters": round(10_000 * left) or 1,
        "macs": round(50_000 * left) or 1, "bytes_on_disk": 40_000,
    }  # fmt: skip
    return made_up.row(seed, method, target, accuracy, **(values | other))


def _rows(seed, names, layers):
    wobble = 0.002 * seed
    rows = [a_row(seed, "baseline", 0.0, 0.95 + wobble)]
    for name, point in product(names, POINTS):
        method = methods.METHODS[name]
        size = round(40_000 * (1 - point)) if method.family == methods.STRUCTURED else 40_000
        loss = point / 20 if method.trained else point**2
        rows.append(a_row(seed, name, point, 0.97 - loss - wobble, bytes_on_disk=size))
    if "finetune_long" in names:
        rows += [a_row(seed, f"baseline_{how}", 0.0, 0.952) for how in ("finetune", "long")]
    rows += [
        a_row(seed, "layer_alone", point, 0.95 - point / (2 + index % 3), layer=layer)
        for (index, layer), point in product(enumerate(layers), POINTS)
    ]
    rows += [
        a_row(seed, method.name, 0.0, 0.95 - 0.5 / 2**bits, bits=bits,
              bytes_on_disk=1_300 * max(8, bits))
        for method, bits in product(methods.of_family(methods.INTEGER), BITS)
    ]  # fmt: skip
    rows += [
        a_row(seed, method, 0.0, 0.95 - factor / 2000, bits=5, bytes_on_disk=size,
              times_smaller=factor, sparsity=0.6, model=f"{method}-{factor:g}x.packed")
        for (method, factor), size in PACKED.items()
    ]  # fmt: skip
    return rows + [
        a_row(seed, method, sparsity, 0.94, bits=bits, model=f"{method}.onnx")
        for method, engine, bits, sparsity in TIMED
        if engine == "onnxruntime"
    ]


def _latencies(seeds, names):
    """All of batch 1, and of 64 those whose latency is known: one ONNX file could not be run."""
    lines = pd.DataFrame(
        {"seed": seed, "method": method, "engine": engine, "target_sparsity": sparsity,
         "weight_bits": bits, "batch_size": batch, "latency_ms": time * batch**0.5,
         "latency_iqr_ms": 0.01 * time}
        for seed, batch, ((method, engine, bits, sparsity), time)
        in product(seeds, (1, 64), TIMED.items()) if method in names or method not in NAMES
    )  # fmt: skip
    unknown = (lines.method == "onnx_baseline_float32") & (lines.batch_size == 64)
    lines.loc[unknown, ["latency_ms", "latency_iqr_ms"]] = math.nan
    note = unknown.map({True: "could not be run", False: None})
    lines = lines.assign(repetitions=9 * ~unknown, note=note)
    return lines.assign(device="cpu", threads=2, isa="AVX-512 VNNI", model="")


def _agreements(files):
    """Each file as executed: in OpenVINO a percentage point less accurate."""
    engines = {"onnxruntime": 0.0, "openvino": 0.01}
    return pd.concat(
        files.assign(engine=name, agreement=0.99 - less, test_accuracy=files.test_accuracy - less)
        for name, less in engines.items()
    )


def a_choice(
    words, method, size, milliseconds=None, loss=0.0, ranked=True, file="x.packed", name=""
):
    """A network of selection.json; the baseline takes 40,000 bytes and 2 ms."""
    timed = milliseconds is not None
    return {
        "name": name or words, "words": words, "method": method, "seed": 0, "file": file,
        "bytes": size,
        "times_smaller": 40_000 / size,
        "validation_loss": {"estimate": loss, "low": loss - 0.01, "high": loss + 0.01},
        "test": {"accuracy": 0.95 - loss, "low": 0.93 - loss, "high": 0.97 - loss},
        "latency_ms": milliseconds, "latency_iqr_ms": 0.01 if timed else None,
        "engine": "torch", "batch_size": 1 if timed else None, "threads": 2,
        "speedup": 2.0 / milliseconds if timed and ranked else None,
    }  # fmt: skip


BASELINE = a_choice(
    "dense baseline", "baseline", 40_000, 2.0, file="baseline.safetensors", name="baseline"
)
SMALLEST = a_choice(
    "pruned, quantized and packed, 50 ×", "packed", 820, loss=0.004, name="packed-50x"
)
FASTEST = a_choice(
    "ONNX int8", "onnx_baseline_int8", 12_000, 0.4, file="x.onnx",
    name="onnx_baseline_int8-8bit",
) | {"engine": "onnxruntime"}  # fmt: skip
UNPRUNED = a_choice(
    "ONNX", "onnx_baseline_float32", 40_000, 1.0, file="x.onnx", name="onnx_baseline_float32"
) | {"engine": "onnxruntime"}  # fmt: skip
NOTE = "0 to 0.5 percentage points: 300 images cannot tell these apart (± 1.0)"
SELECTION = {
    "validation_images": 300, "test_images": 500, "baseline": BASELINE, "unpruned": UNPRUNED,
    "budgets": [
        {"losses": [0.0, 0.005], "note": NOTE, "smallest": BASELINE, "fastest": None},
        {"losses": [0.02], "note": "", "smallest": SMALLEST, "fastest": FASTEST},
    ],
    "recommended": {
        "smallest": {"choice": SMALLEST, "reason": "the smallest of 3", "nearest": []},
        "fastest": {"choice": None, "reason": "no network meets it", "nearest": [FASTEST]},
    },
}  # fmt: skip


def _of_seed(value, seed):
    """The selection, with the file of that seed everywhere."""
    if isinstance(value, list):
        return [_of_seed(one, seed) for one in value]
    if isinstance(value, dict):
        return {key: seed if key == "seed" else _of_seed(one, seed) for key, one in value.items()}
    return value


PARAMS = {
    "data": {"color": "auto"}, "model": {"name": "convnet", "weights": "none"},
    "layerwise_sweep": {"max_accuracy_drop": 0.01},
    "package": {"max_accuracy_drop": 0.01, "max_bytes": 1000, "max_latency_ms": "none"},
    "report": {"sparsity": 0.8, "confidence": 0.95, "course": True, "tolerance": 0.01},
}  # fmt: skip


def a_run(seeds=(0, 1, 2), names=NAMES, layers=LAYERS, classes=("a", "b"), gpu=False):
    """A run with these methods. classes: names; the first is that of the data's folder too."""
    rows = [row for seed in seeds for row in _rows(seed, names, layers)]
    of_layers = pd.DataFrame(product(seeds, layers), columns=["seed", "layer"])
    table = pd.DataFrame(rows).astype({"test_top5": float})
    kept = table[table.model.str.endswith(".packed") | (table.method == "baseline")]
    return Run(
        seeds=list(seeds),
        rows=table,
        best=of_layers.assign(sparsity=0.4),
        filters=of_layers.assign(
            prunable=["no" if layer == layers[-1] else "yes" for layer in of_layers.layer],
            reason="its outputs are the classes",
        ),
        layers=pd.DataFrame(
            {"seed": seed, "layer": layer, "scheme": scheme, "granularity": granularity,
             "bits": bits, "scale_most": 0.01, "zero_point_most": 0, "mse": 1.01 * 4.0**-bits,
             "theory": 4.0**-bits, "ratio": 1.01}
            for seed, layer, scheme, granularity, bits in product(
                seeds, layers, ("affine", "symmetric"), ("tensor", "channel"), BITS
            )
        ),
        agreements=_agreements(table[table.model.str.endswith(".onnx")]),
        int8_layers=of_layers.assign(
            method="onnx_baseline_int8", target_sparsity=0.0, float32="no",
            decibels=[40.0 + len(layer) % 9 for layer in of_layers.layer],
        ),
        latencies=_latencies(seeds, names),
        sizes=kept.assign(
            dense_bytes=40_000, nonzero_bytes=5_000, index_value_bytes=9_000, entropy_bytes=4_100,
            zip_bytes=12_000, file_bytes=kept.bytes_on_disk,
        ),
        formats=made_up.formats(
            gpu=(1.0, 2.0, 3.0) if gpu else None, sizes=(40_000, 20_000, 20_000)
        )[list(records.FORMAT)],
        inventory=pd.DataFrame(
            [("Conv2d", 2, "yes"), ("Linear", 3, "yes"), ("BatchNorm2d", 2, "no")],
            columns=["kind", "count", "prunable"],
        ),
        curves=pd.DataFrame(
            {"seed": seed, "epoch": epoch, "train_accuracy": 0.3 * epoch,
             "validation_accuracy": 0.29 * epoch}
            for seed, epoch in product(seeds, (1, 2, 3))
        ),
        selection=_of_seed(SELECTION, seeds[0]),
        params=PARAMS,
        meta=META | {
            "images": {"train": 1000, "validation": 300, "test": 500}, "unreadable_count": 0,
            "classes": list(classes), "source": classes[0],
        },
        hardware=MACHINE | {"gpus": ["a GPU"] if gpu else []},
        chance=0.5,
        **_predicted(len(seeds), len(classes)),
    )  # fmt: skip


def _predicted(seeds, classes):
    """Labels, images and predictions: the smallest file takes some images for the next class."""
    counts = {"validation": 300, "test": 500}
    labels = {part: np.arange(count) % classes for part, count in counts.items()}
    right = Predicted(*(np.tile(found, (seeds, 1)) for found in labels.values()))
    changed = [(one + (np.arange(one.shape[1]) % 50 == 7)) % classes for one in right]
    pixels = np.arange(300 * 3 * 8 * 8, dtype=np.uint8).reshape(300, 3, 8, 8)
    networks = {BASELINE["name"]: right, SMALLEST["name"]: Predicted(*changed)}
    return {"labels": labels, "pictures": pixels, "predicted": networks}


def much():
    """60 layers with long and hostile names, 100 classes, a GPU, one seed."""
    long = [f"backbone.features.stage{index}.block.attention.projection" for index in range(47)]
    classes = [f"a class with a rather long name, {index}" for index in range(87)]
    run = a_run((7,), layers=[*HOSTILE, *long], classes=[*HOSTILE, *classes], gpu=True)
    hostile = {"name": "nets/<b>mine</b>.py:build", "weights": "none"}
    return dataclasses.replace(run, params=run.params | {"model": hostile})


def little():
    """One seed, no structured pruning, no controls, no training of the baseline, no file to
    deploy.
    """
    stages = ("controls", "structured_prune")
    run = a_run((0,), [name for name in NAMES if methods.METHODS[name].stage not in stages])
    deployed = [one.name for one in methods.of_family(methods.PACKED, methods.ONNX)]
    return dataclasses.replace(
        run,
        rows=run.rows[~run.rows.method.isin(deployed)],
        latencies=run.latencies[~run.latencies.method.isin(deployed)],
        curves=run.curves[:0],
        formats=run.formats[run.formats.device == "cuda"],
        params=run.params | {"model": {"name": "convnet", "weights": "mine.safetensors"}},
    )


RUNS = {"everything": a_run, "much": much, "little": little}


@cache
def drawn(name):
    """One of RUNS, and its figures."""
    run = RUNS[name]()
    return run, figures.build(run)


@cache
def page(name):
    run, shown = drawn(name)
    return html.render(run, FINDINGS, shown)
