"""Static int8 of an ONNX network: weights and activations, quantized by ONNX Runtime's QDQ tools.

Weights are symmetric int8, one scale per output channel, so that zeros of a pruned network stay
zeros; activations are uint8 with ranges seen on calibration images.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from stages.lib.core import hardware
from stages.lib.engines import calibration, onnx_export, onnx_pixels
from stages.lib.engines.calibration import Observed
from stages.lib.engines.onnx_runtime import onnxruntime
from stages.lib.engines.onnx_session import IMAGES, LOGITS

# The values of a whole batch's activations are held at once.
BATCH = 32
PIXELS = 32 * 32
# What ONNX Runtime computes in integers on a CPU. Norms over channels, softmax and GELU stay in
# float32: they would be dequantized around every call.
INTEGER_OPERATORS = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "MaxPool",
    "AveragePool", "GlobalAveragePool", "Concat", "Flatten", "Reshape", "Transpose", "Squeeze",
    "Unsqueeze", "Slice", "Split", "Pad",
)  # fmt: skip
_INFERRED = ("onnx.infer", "onnxruntime.quant")


def weight_bits(wanted: int | str, machine: Mapping[str, Any]) -> int:
    """8, or for `auto` 7 where this machine's int8 kernels would saturate.

    machine: as `hardware.describe` gives it.
    """
    if wanted != "auto":
        return int(wanted)
    return 7 if hardware.int8_saturates(machine["machine"], machine["isa"]) else 8


def _inferred(model: bytes) -> onnx.ModelProto:
    """The network as it is observed and quantized: its first convolution reads raw pixels."""
    return onnx_pixels.folded(onnx.shape_inference.infer_shapes(onnx.load_from_string(model)))


def _activations(proto: onnx.ModelProto) -> list[str]:
    """Names of the float32 tensors that are computed from images, in the order of the graph."""
    graph = proto.graph
    types = {value.name: value.type.tensor_type.elem_type for value in
             (*graph.value_info, *graph.output)}  # fmt: skip
    made = [name for node in graph.node if node.op_type != "Constant" for name in node.output]
    return [name for name in made if types.get(name) == TensorProto.FLOAT]


def _running(proto: onnx.ModelProto, names: Sequence[str], threads: int) -> Callable:
    """A function from images to the tensors `names`."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    outputs = {value.name for value in watched.graph.output}
    for value in proto.graph.value_info:
        if value.name in names and value.name not in outputs:
            watched.graph.output.add().CopyFrom(value)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Every tensor as the graph has it: none folded into another.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(list(names), {IMAGES: images})


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    height, width = images.shape[2:]
    size = max(1, min(BATCH, BATCH * PIXELS // (height * width)))
    for start in range(0, len(images), size):
        yield np.ascontiguousarray(images[start : start + size])


def observe(model: bytes, images: np.ndarray, threads: int) -> dict[str, Observed]:
    """What every activation of the network does on calibration images: uint8 [n, c, h, w].

    Two passes, a batch at a time: the ranges, then how often which value occurs within them.
    """
    proto = _inferred(model)
    names = _activations(proto)
    run = _running(proto, names, threads)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for batch in _batches(images):
        found = run(batch)
        low = np.minimum(low, [values.min() for values in found])
        high = np.maximum(high, [values.max() for values in found])
    bounds = np.maximum(abs(low), abs(high))
    counts = [np.zeros(2 * calibration.BINS, np.int64) for _ in names]
    for batch in _batches(images):
        for total, values, bound in zip(counts, run(batch), bounds, strict=True):
            total += calibration.histogram(values, bound)
    return {
        name: Observed(float(least), float(most), count)
        for name, least, most, count in zip(names, low, high, counts, strict=True)
    }


def ranges(
    seen: Mapping[str, Observed], method: str, percentile: float
) -> dict[str, tuple[float, float]]:
    """The range of every activation by one method: minmax, entropy or percentile (which keeps that
    many percent of the values).
    """
    choose = {
        "minmax": calibration.minmax,
        "entropy": calibration.entropy,
        "percentile": lambda one: calibration.percentile(one, percentile / 100),
    }[method]
    return {name: choose(one) for name, one in seen.items()}


def _normalising(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes between the raw images and the network: their precision is kept."""
    constants = {value.name for value in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    reached, found = {IMAGES}, []
    for node in graph.node:
        inputs = set(node.input) - constants
        if node.op_type in ("Cast", "Mul", "Add", "Pad") and inputs and inputs <= reached:
            found.append(node.name)
            reached.update(node.output)
    return found


def _with_float_logits(graph: onnx.GraphProto) -> None:
    """Takes the rounding of the logits away, in place: 256 levels would make ties of close classes,
    and cut off what is larger than on the calibration images.
    """
    makers = {name: node for node in graph.node for name in node.output}
    last = makers[LOGITS]
    if last.op_type != "DequantizeLinear":
        return
    rounding = makers[last.input[0]]
    exact = rounding.input[0]
    if sum(exact in node.input for node in graph.node) > 1:
        return
    makers[exact].output[list(makers[exact].output).index(exact)] = LOGITS
    graph.node.remove(last)
    graph.node.remove(rounding)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools print, and log to the root logger what a person cannot act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def quantize(
    model: bytes, chosen: Mapping[str, tuple[float, float]], bits: int, about: Mapping[str, Any]
) -> bytes:
    """The network in int8: an ONNX file with the same input and output.

    chosen: the range of every activation, of `ranges`; bits: 8, or 7 for CPUs on which the sum of
    two products of eight bits saturates (`hardware.int8_saturates`); about: joins what the
    file says of itself.
    """
    import json

    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    notes = onnx_export.metadata(model)
    proto = _inferred(model)
    proto.metadata_props.add(key=_INFERRED[0], value=_INFERRED[1])
    exact = {onnx_pixels.PIXELS: onnx_pixels.RANGE} if onnx_pixels.PIXELS in chosen else {}
    limits = {
        name: (np.float32(low), np.float32(high)) for name, (low, high) in (chosen | exact).items()
    }
    with _quiet():
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=bits == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
            nodes_to_quantize=[],
            nodes_to_exclude=_normalising(proto.graph),
            op_types_to_quantize=list(INTEGER_OPERATORS),
            extra_options={"WeightSymmetric": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    _with_float_logits(quantizer.model.model.graph)
    onnx_pixels.read_directly(quantizer.model.model.graph)
    quantizer.model.clean_initializers()
    notes[onnx_export.ABOUT] |= about
    return onnx_export.sealed(
        quantizer.model.model, {key: json.dumps(value) for key, value in notes.items()}
    )
