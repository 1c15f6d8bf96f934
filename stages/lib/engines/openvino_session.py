"""Executes ONNX networks in OpenVINO on the CPU."""

import re
from functools import cache
from typing import Any

import numpy as np

from stages.lib.core import errors
from stages.lib.core.errors import UserError
from stages.lib.engines.executors import Execute


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _options(threads: int) -> dict[str, Any]:
    """One stream for the lowest latency. Threads are not pinned to cores, which the engines share.
    Where the CPU computes in bfloat16, OpenVINO would do so with float32 files: not asked for.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }


def _reason(error: Exception) -> str:
    """What OpenVINO says of the network, without the places in its sources."""
    lines = [line for line in str(error).splitlines() if not re.search(r"\.[ch]pp:\d+", line)]
    return errors.reason(Exception(" ".join(lines)))


def load(model: bytes, threads: int, name: str, spinning: bool = True) -> Execute:
    """As `executors.load`. The network is compiled for each shape of images that comes, because
    fixed shapes are faster; of each shape one request is reused, with its own memory.

    spinning: has no effect, as OpenVINO's threads do not spin for long.
    """

    def failed(error: Exception) -> UserError:
        return UserError(f"{name}: OpenVINO cannot load it ({_reason(error)})")

    try:
        network = _core().read_model(model)
    except Exception as error:  # noqa: BLE001 - OpenVINO's exceptions have no common base
        raise failed(error) from None
    requests: dict[tuple[int, ...], tuple[Any, np.ndarray, np.ndarray]] = {}

    def request(shape: tuple[int, ...]) -> tuple[Any, np.ndarray, np.ndarray]:
        try:
            network.reshape(list(shape))
            made = _core().compile_model(network, "CPU", _options(threads)).create_infer_request()
        except Exception as error:  # noqa: BLE001
            raise failed(error) from None
        return made, made.get_input_tensor().data, made.get_output_tensor().data

    def execute(images: np.ndarray) -> np.ndarray:
        found = requests.get(images.shape)
        if found is None:
            found = requests[images.shape] = request(images.shape)
        made, source, logits = found
        source[:] = images
        made.infer(share_outputs=True)
        return logits.copy()

    return execute
