"""Every param at the ends of what is allowed: the pipeline runs through, or refuses it up front.

One combination in the ordinary run of the tests; EDGE_RUNS=50 tries that many, for a night.
"""

import copy
import os
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stages.lib.core import params, pipeline, timing
from stages.lib.core.errors import UserError
from tests.conftest import IN_ONE_PROCESS, TINY, Repository

RUNS = int(os.environ.get("EDGE_RUNS", "1"))
# Few images, so that small batches and many of them cost little.
FEW = {"data": {"validation_images": 97, "test_images": 1600}, "training": {"batch_size": 50}}
# What is first is the combination of the ordinary run.
# The least and the greatest value of each param that costs no hours at its end, and what is odd
# between.
EDGES = {
    "seeds": [[0], [2**32 - 1]],
    "data.validation_images": [10, 97, 187],
    "data.split_seed": [0, 2**32 - 1],
    "model.width": [1, 5],
    "model.normalize": ["training", "imagenet", "half", "none"],
    "training.batch_size": [2, 99, 65_536],
    "training.momentum": [0.0, 0.999],
    "training.weight_decay": [0.0, 1.0],
    "training.shift": [0, 64],
    "train_baseline.learning_rate": [1.0e-9, 0.1, 10.0],
    "teacher.name": ["baseline", "convnet"],
    "teacher.learning_rate": [1.0e-9, 10.0],
    "layerwise_sweep.max_accuracy_drop": [0.0, 1.0],
    "finetune.learning_rate": [1.0e-9, 10.0],
    "iterative_prune.learning_rate": [1.0e-9, 10.0],
    "controls.finetuned": [["baseline", "uniform"], []],
    "controls.equal_budget": ["all", []],
    "structured_prune.learning_rate": [1.0e-9, 10.0],
    "compress.learning_rate": [1.0e-9, 10.0],
    "structured_prune.scopes": [["layer"], ["global"], []],
    "structured_prune.sparsities": [[0.0001], [0.5, 0.9999], []],
    "structured_prune.multiple_of": [1, 64],
    "structured_prune.distillation": [0.0, 1.0],
    "structured_prune.temperature": [0.1, 100.0],
    "compress.arms": [["both", "baseline"], []],
    "compress.times_smaller": [[1.01], [1000.0], [4.0], []],
    "compress.distillation": [0.0, 1.0],
    "compress.temperature": [0.1, 100.0],
    "dtype_bench.batch_sizes": [[1], [3]],
    "dtype_bench.agreement_images": [1, 1024],
    "dtype_bench.networks": [["baseline"], []],
    "dtype_bench.dtypes": [["float16"], ["float32", "float16", "bfloat16"], []],
    "dtype_bench.devices": [["cpu", "cuda"], []],
    "dtype_bench.seconds": [1.0e-9, 0.01],
    "latency_bench.batch_sizes": [[1], [3, 1024], []],
    "latency_bench.seconds": [1.0e-9, 0.01],
    "int_quantize.bits": [[2], [2, 16], [8]],
    "int_quantize.schemes": [["affine"], ["symmetric"], []],
    "int_quantize.granularities": [["tensor"], ["channel"]],
    "int_quantize.store_bits": ["last", []],
    "export_onnx.calibration": [["minmax"], ["entropy", "percentile"], []],
    "export_onnx.improvements": ["none", [], ["bias_correction"]],
    "export_onnx.keep_float": ["none", "auto"],
    "export_onnx.max_int8_drop": [0.0, 1.0],
    "export_onnx.least_agreement": [0.0, 1.0],
    "export_onnx.calibration_images": [1, 100_000],
    "export_onnx.percentile": [50.0, 100.0],
    "export_onnx.weight_bits": ["auto", 7, 8],
    "package.max_accuracy_drop": [0.0, 1.0],
    "package.max_bytes": ["none", 1, 2**40],
    "package.max_latency_ms": ["none", 1.0e-9, 1_000_000.0],
    "report.confidence": [0.5, 0.9999],
    "report.course": [True, False],
    "report.tolerance": [0.0, 1.0],
}  # fmt: skip
# What takes hours at its end is accepted; its least value is in TINY.
ACCEPTED = {
    "engine.state_minutes": [0, 10_000],
    "data.image_size": [8, 1024],
    "data.max_unreadable": [0, 10**9],
    "data.test_images": [1, 10**9],
    "train_baseline.epochs": [1, 10_000],
    "finetune.epochs": [1, 10_000],
    "iterative_prune.step": [0.001],
    "iterative_prune.epochs_per_step": [1, 10_000],
    "structured_prune.epochs": [1, 10_000],
    "compress.epochs": [1, 10_000],
    "teacher.width": [1, 512],
    "teacher.epochs": [1, 10_000],
    "dtype_bench.resnet152_image_size": [32, 512],
    "dtype_bench.batch_sizes": [[1, 1024], []],
    "dtype_bench.seconds": [3600.0],
    "latency_bench.seconds": [3600.0],
    "model.width": [512],
}  # fmt: skip
# What no machine can do is refused up front.
REFUSED = {
    "compute.threads": 1024, "compute.ranks": 1024, "engine.workers": 1024,
    "latency_bench.threads": 1024,
}  # fmt: skip
# Texts, and words to choose from.
WITHOUT_ENDS = {
    "compute.device", "compute.precision", "engine.name", "engine.ahead", "engine.address",
    "data.source", "data.root", "data.color", "model.name", "model.weights", "model.weights_key",
    "model.class_index", "teacher.name", "teacher.weights", "training.mirror",
    "export_onnx.structured_scopes", "export_onnx.structured_sparsities",
}  # fmt: skip
# Those that `combinations` chooses together.
TOGETHER = {"sparsities", "report.sparsity", "iterative_prune.target"}
STAGES = ["probe", *(name for name in pipeline.stages() if name != "probe")]
SPARSITIES = [[0.0001], [0.3, 0.6], [0.0, 0.9999], []]


def put(values, path, value):
    section, _, key = path.partition(".")
    place, key = (values[section], key) if key else (values, section)
    place[key] = value


@st.composite
def combinations(draw):
    values = copy.deepcopy(TINY)
    for section, some in FEW.items():
        values[section] |= some
    for path, edges in EDGES.items():
        put(values, path, draw(st.sampled_from(edges), label=path))
    quantize = values["int_quantize"]
    quantize["store_bits"] = quantize["bits"][-1:] if quantize["store_bits"] else []
    values["sparsities"] = draw(st.sampled_from(SPARSITIES), label="sparsities")
    values["report"]["sparsity"] = (values["sparsities"] or [0.5])[-1]
    last = max(values["report"]["sparsity"], 0.001)
    values["iterative_prune"] |= {"target": last, "step": draw(st.sampled_from([last, last / 2]))}
    values["iterative_prune"]["step"] = max(0.001, round(values["iterative_prune"]["step"], 4))
    return values


def test_every_param_is_tried_at_its_ends():
    names = {
        f"{section}.{key}" if key else section
        for section, value in TINY.items()
        for key in (value if isinstance(value, dict) else [""])
    }
    assert names == {*EDGES, *ACCEPTED, *REFUSED, *WITHOUT_ENDS, *TOGETHER}
    for path, edges in ACCEPTED.items():
        for edge in edges:
            values = copy.deepcopy(TINY)
            put(values, path, edge)
            params.validate(values)
    for path, greatest in REFUSED.items():
        values = copy.deepcopy(TINY)
        put(values, path, greatest)
        with pytest.raises(UserError, match=path):
            params.validate(values)


def test_the_greatest_epochs_are_what_is_counted():
    values = copy.deepcopy(TINY)
    for path in ACCEPTED:
        if "epochs" in path:
            put(values, path, 10_000)
    trained = timing.epochs(params.validate(values))
    assert trained["train_baseline"] == 10_000
    assert trained["finetune"] == 2 * 10_000
    assert trained["compress"] == 2 * 2 * 10_000


@settings(
    max_examples=RUNS, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
@given(values=combinations())
def test_values_at_the_ends_run_through_or_are_refused_up_front(tmp_path_factory, values):
    try:
        params.validate(values)
    except UserError:
        return
    repository = Repository(tmp_path_factory.mktemp("edges"), values)
    done = repository.run(sys.executable, "-c", IN_ONE_PROCESS, *STAGES)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (repository.path / "reports/index.html").is_file()
