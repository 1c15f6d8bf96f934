"""Quantizes an ONNX network to static int8, weights and activations, by ONNX Runtime's QDQ tools.

Weights are symmetric int8 with one scale per output channel, so that the zeros of a pruned network
stay zeros. Activations are uint8 with ranges from calibration images.
"""

import contextlib
import io
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto

from stages.lib.core import errors, hardware
from stages.lib.core.errors import UserError
from stages.lib.engines import calibration, int8_layers, onnx_export, onnx_pixels, onnx_session
from stages.lib.engines.calibration import Observed, Range
from stages.lib.engines.onnx_session import IMAGES, LOGITS

# The operators that ONNX Runtime computes in integers on a CPU. Norms over channels, softmax and
# GELU stay in float32, because each call would dequantize its input and quantize its output.
INTEGER_OPERATORS = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "MaxPool",
    "AveragePool", "GlobalAveragePool", "Concat", "Flatten", "Reshape", "Transpose", "Squeeze",
    "Unsqueeze", "Slice", "Split", "Pad",
)  # fmt: skip
# What is tried if a network with all of these cannot be quantized: the layers that have weights.
WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")


def weight_bits(wanted: int | str, machine: Mapping[str, Any]) -> int:
    """The width of int8 weights. `auto`: 7 if the int8 kernels of this machine (as described by
    `hardware.describe`) would saturate, else 8.
    """
    if wanted != "auto":
        return int(wanted)
    return 7 if hardware.int8_saturates(machine["machine"], machine["isa"]) else 8


def inferred(model: bytes) -> onnx.ModelProto:
    """The network that is calibrated and quantized: its first convolution reads raw pixels."""
    return onnx_pixels.folded(onnx.shape_inference.infer_shapes(onnx.load_from_string(model)))


def observe(model: bytes, images: torch.Tensor, threads: int) -> dict[str, Observed]:
    """The values of every activation on calibration images, uint8 [n, c, h, w].

    There are two passes, a batch at a time: for the ranges, then for histograms within them.
    """
    proto = inferred(model)
    graph = proto.graph
    infos = {info.name: info for info in (*graph.value_info, *graph.output)
             if info.type.tensor_type.elem_type == TensorProto.FLOAT}  # fmt: skip
    names = [name for node in graph.node for name in node.output if name in infos]
    graph.output.extend(infos[name] for name in names if name != LOGITS)
    session = onnx_session.session(proto.SerializeToString(), threads, optimized=False)
    size = int8_layers.batch_size(images)

    def activations() -> Iterator[list[np.ndarray]]:
        for batch in images.split(size):
            yield session.run(names, {IMAGES: batch.contiguous().numpy()})

    ranges = [[(values.min(), values.max()) for values in batch] for batch in activations()]
    low, high = np.min(ranges, 0)[:, 0], np.max(ranges, 0)[:, 1]
    counts = [np.zeros(2 * calibration.BINS, np.int64) for _ in names]
    for batch in activations():
        for total, values, bound in zip(counts, batch, np.maximum(-low, high), strict=True):
            total += calibration.histogram(values, bound)
    return {
        name: Observed(*seen)
        for name, *seen in zip(names, low.tolist(), high.tolist(), counts, strict=True)
    }


def _normalizing(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes between the raw images and the network, which stay in float32."""
    constants, reached, names = onnx_pixels.constants(graph), {IMAGES}, []
    for node in graph.node:
        computed = set(node.input) - set(constants)
        if node.op_type in ("Cast", "Mul", "Add", "Pad") and computed and computed <= reached:
            names.append(node.name)
            reached.update(node.output)
    return names


def _with_float_logits(graph: onnx.GraphProto) -> None:
    """Removes the quantization of the logits, in place. With 256 levels, close classes would tie,
    and logits larger than on the calibration images would be cut off.
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
    """Silences ONNX Runtime's tools, which print, and log to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _quantized(
    proto: onnx.ModelProto,
    ranges: Mapping[str, Range],
    bits: int,
    keep: Collection[str],
    operators: Sequence[str],
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    # Says that shapes are inferred already.
    proto.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    layers = int8_layers.layers(proto.graph)
    kept = [layer.node.name for layer in layers if layer.name in keep]
    limits = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    with _quiet():
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=bits == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
            nodes_to_quantize=[],
            nodes_to_exclude=[*_normalizing(proto.graph), *kept],
            op_types_to_quantize=list(operators),
            extra_options={"WeightSymmetric": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    graph = quantizer.model.model.graph
    _with_float_logits(graph)
    onnx_pixels.read_directly(graph)
    quantizer.model.clean_initializers()
    return quantizer.model.model


def quantize(
    model: bytes,
    ranges: Mapping[str, Range],
    bits: int,
    about: Mapping[str, Any],
    keep: Collection[str] = (),
) -> bytes:
    """The network in int8: the bytes of an ONNX file with the same input and output.

    ranges: of every activation that `observe` returned.
    bits: of the weights: 8, or 7 for CPUs on which sums of 8-bit products saturate
        (`hardware.int8_saturates`).
    about: joins the file's metadata.
    keep: the names of layers (int8_layers.Layer) that stay in float32.

    Raises UserError if ONNX Runtime's tools cannot quantize the network.
    """
    notes = onnx_export.metadata(model)
    notes[onnx_export.ABOUT] |= about
    if onnx_pixels.PIXELS in ranges:
        ranges = {**ranges, onnx_pixels.PIXELS: onnx_pixels.RANGE}
    problems = []
    for operators in (INTEGER_OPERATORS, WITH_WEIGHTS):
        try:
            proto = _quantized(inferred(model), ranges, bits, keep, operators)
            file = onnx_export.sealed(proto, notes)
            onnx_session.load(file, 1, "the int8 network")
            return file
        except Exception as error:  # noqa: BLE001 - their errors have no common base
            problems.append(errors.reason(error))
    raise UserError(f"the network cannot be quantized ({problems[0]})")
