"""ONNX networks executed by ONNX Runtime on the CPU: what the deployed file itself answers."""

from collections.abc import Callable

import numpy as np
import torch

from stages.lib.core.errors import UserError
from stages.lib.engines.onnx_runtime import onnxruntime
from stages.lib.evaluation import inference
from stages.lib.evaluation.evaluator import Predicted
from stages.lib.evaluation.samples import Data, Samples

# The names of an exported network's one input and one output.
IMAGES, LOGITS = "images", "logits"


def session(
    model: bytes, threads: int, *, name: str = "the ONNX network", spinning: bool = True
) -> onnxruntime.InferenceSession:
    """A session on the CPU: one operator after the other with `threads` threads each, all graph
    optimisations.

    spinning: threads wait for work in a loop, which answers sooner and keeps a core busy for a
    moment longer. Raises UserError, with `name`, where ONNX Runtime cannot load the network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors alone: they are raised as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "01"[spinning])
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base
        reason = str(error).splitlines()[0]
        raise UserError(f"{name}: ONNX Runtime cannot load it ({reason})") from None


def call(network: onnxruntime.InferenceSession, images: np.ndarray) -> Callable[[], object]:
    """A call without arguments that answers `images`, uint8 [n, c, h, w]: for timing."""
    inputs = {IMAGES: np.ascontiguousarray(images)}
    return lambda: network.run(None, inputs)


def logits(network: onnxruntime.InferenceSession, samples: Samples) -> torch.Tensor:
    """Of every image, in batches: float32 [n, classes]. The network normalises by itself."""
    return torch.cat(
        [
            torch.from_numpy(network.run(None, {IMAGES: batch.cpu().contiguous().numpy()})[0])
            for batch in samples.images.split(samples.batch_size)
        ]
    )


def predictions(validation: torch.Tensor, test: torch.Tensor, data: Data) -> Predicted:
    """As `measuring.predictions`, from the logits of both parts, float32 [n, classes]."""
    top5 = None
    if len(data.classes) >= inference.LEAST_CLASSES_FOR_TOP5:
        top5 = inference.top5_accuracy(test, data.test.labels)
    return Predicted(validation.argmax(1), test.argmax(1), top5)
