"""Executes ONNX networks in ONNX Runtime on the CPU, as they are deployed."""

import torch

from stages.lib.core import errors
from stages.lib.core.errors import UserError
from stages.lib.engines.executors import Execute
from stages.lib.engines.onnx_runtime import onnxruntime
from stages.lib.evaluation import inference
from stages.lib.evaluation.evaluator import Predicted
from stages.lib.evaluation.samples import Data

# The names of an exported network's only input and only output.
IMAGES, LOGITS = "images", "logits"


def session(
    model: bytes,
    threads: int,
    *,
    name: str = "the ONNX network",
    spinning: bool = True,
    optimized: bool = True,
) -> onnxruntime.InferenceSession:
    """A session on the CPU that runs one operator after the other.

    threads: of each operator.
    name: of the network in errors.
    spinning: whether threads wait for work in a loop, which is faster but keeps a core busy.
    optimized: with all graph optimizations, or with none, so that every tensor of the graph exists.

    Raises UserError if ONNX Runtime cannot load the network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # fatal: errors are raised
    options.add_session_config_entry("session.intra_op.allow_spinning", "01"[spinning])
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base
        reason = errors.reason(error)
        raise UserError(f"{name}: ONNX Runtime cannot load it ({reason})") from None


def load(model: bytes, threads: int, name: str, spinning: bool = True) -> Execute:
    """As `executors.load`."""
    network = session(model, threads, name=name, spinning=spinning)
    return lambda images: network.run(None, {IMAGES: images})[0]


def predictions(validation: torch.Tensor, test: torch.Tensor, data: Data) -> Predicted:
    """As `evaluator.predictions`, from the logits of both parts, float32 [n, classes] each."""
    top5 = None
    if len(data.classes) >= inference.LEAST_CLASSES_FOR_TOP5:
        top5 = inference.top5_accuracy(test, data.test.labels)
    return Predicted(validation.argmax(1), test.argmax(1), top5)
