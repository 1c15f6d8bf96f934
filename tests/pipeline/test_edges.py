"""Every param at the ends of what is allowed: the pipeline runs through, or refuses it up front.

One combination in the ordinary run of the tests; EDGE_RUNS=50 tries that many, for a night.
"""

import copy
import os
import sys

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stages.lib.core import params, pipeline
from stages.lib.core.errors import UserError
from tests.conftest import IN_ONE_PROCESS, TINY, Repository

RUNS = int(os.environ.get("EDGE_RUNS", "1"))
# Few images, so that small batches and many of them cost little.
FEW = {"data": {"validation_images": 97, "test_images": 1600}, "training": {"batch_size": 50}}
# The least and the greatest value of each param that costs no hours at its end, and what is odd
# between. Others (epochs, seconds, image sizes, threads) have their least value in TINY.
EDGES = {
    "seeds": [[0], [2**32 - 1]],
    "data.validation_images": [10, 97, 187],
    "data.split_seed": [0, 2**32 - 1],
    "model.width": [2, 5],
    "model.normalize": ["training", "imagenet", "half", "none"],
    "training.batch_size": [2, 99, 65_536],
    "training.momentum": [0.0, 0.999],
    "training.weight_decay": [0.0, 1.0],
    "training.shift": [0, 64],
    "train_baseline.learning_rate": [1.0e-9, 0.1, 10.0],
    "teacher.name": ["baseline", "convnet"],
    "layerwise_sweep.max_accuracy_drop": [0.0, 1.0],
    "finetune.learning_rate": [1.0e-9, 10.0],
    "iterative_prune.learning_rate": [1.0e-9, 10.0],
    "structured_prune.scopes": [["layer"], ["global"]],
    "structured_prune.distillation": [0.0, 1.0],
    "structured_prune.temperature": [0.1, 100.0],
    "compress.times_smaller": [[1.01], [1000.0], [4.0]],
    "compress.distillation": [0.0, 1.0],
    "compress.temperature": [0.1, 100.0],
    "dtype_bench.batch_sizes": [[1], [3]],
    "dtype_bench.agreement_images": [1, 100_000],
    "dtype_bench.seconds": [1.0e-9, 0.01],
    "latency_bench.seconds": [1.0e-9, 0.01],
    "int_quantize.bits": [[2], [2, 16], [8]],
    "int_quantize.schemes": [["affine"], ["symmetric"]],
    "int_quantize.granularities": [["tensor"], ["channel"]],
    "export_onnx.calibration_images": [1, 100_000],
    "export_onnx.percentile": [50.0, 100.0],
    "export_onnx.weight_bits": ["auto", 7, 8],
    "package.max_accuracy_drop": [0.0, 1.0],
    "package.max_bytes": ["none", 1, 2**40],
    "package.max_latency_ms": ["none", 1.0e-9, 1_000_000.0],
    "report.confidence": [0.5, 0.9999],
    "report.tolerance": [0.0, 1.0],
}  # fmt: skip
STAGES = ["probe", *(name for name in pipeline.stages() if name != "probe")]
SPARSITIES = [[0.0001], [0.3, 0.6], [0.0, 0.9999]]


@st.composite
def combinations(draw):
    values = copy.deepcopy(TINY)
    for section, some in FEW.items():
        values[section] |= some
    for path, edges in EDGES.items():
        section, _, key = path.partition(".")
        place, key = (values[section], key) if key else (values, section)
        place[key] = draw(st.sampled_from(edges), label=path)
    values["int_quantize"]["store_bits"] = values["int_quantize"]["bits"][-1:]
    values["sparsities"] = draw(st.sampled_from(SPARSITIES), label="sparsities")
    values["report"]["sparsity"] = values["sparsities"][-1]
    last = max(values["sparsities"][-1], 0.001)
    values["iterative_prune"] |= {"target": last, "step": draw(st.sampled_from([last, last / 2]))}
    values["iterative_prune"]["step"] = max(0.001, round(values["iterative_prune"]["step"], 4))
    return values


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
