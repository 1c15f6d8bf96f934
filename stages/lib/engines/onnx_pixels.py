"""Lets the first convolution of an int8 network read raw pixels. They are integers from 0 to 255
already, so nothing is lost and nothing is computed before the convolution.

The normalization a · x + b is folded into this convolution. Its weights are multiplied by a. b
applies inside the image but not in the zero padding, so it becomes the weight of one more channel
that is 255 inside the image. The number of channels then becomes a multiple of four, as int8
kernels of x86 read them (with three, ONNX Runtime first copies every window of pixels).
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from stages.lib.engines.onnx_session import IMAGES

# Tensors of the folded graph: the images with the new channels, and the same in float32.
PADDED, PIXELS = "padded_images", "pixels"
WEIGHT, CHANNELS, INSIDE = "pixel_weight", "pixel_channels", "pixel_inside"
LARGEST = 255
# The range of PIXELS, which gives a scale of 1 and a zero point of 0.
RANGE = (0.0, float(LARGEST))
MULTIPLE = 4


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The constant values of the graph, by name."""
    return {value.name: numpy_helper.to_array(value) for value in graph.initializer}


def _readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]


def _only_reader(graph: onnx.GraphProto, name: str, operator: str) -> onnx.NodeProto | None:
    readers = _readers(graph, name)
    outputs = {value.name for value in graph.output}
    fits = len(readers) == 1 and readers[0].op_type == operator and name not in outputs
    return readers[0] if fits else None


def _chain(graph: onnx.GraphProto) -> list[onnx.NodeProto] | None:
    """The nodes Cast, Mul, Add and Conv, if the images go through these first; else None."""
    name, nodes = IMAGES, []
    for operator in ("Cast", "Mul", "Add", "Conv"):
        node = _only_reader(graph, name, operator)
        if node is None:
            return None
        nodes.append(node)
        name = node.output[0]
    return nodes if nodes[-1].input[0] == nodes[-2].output[0] else None


def _per_channel(
    node: onnx.NodeProto, values: dict[str, np.ndarray], channels: int
) -> np.ndarray | None:
    """What a node multiplies or adds to images per channel: float64 [channels], or None."""
    value = next((values[name] for name in node.input if name in values), np.zeros(0))
    if value.size not in (1, channels):
        return None
    if value.size == channels > 1 and value.shape[-3:] != (channels, 1, 1):
        return None
    return np.broadcast_to(value.reshape(-1), channels).astype(np.float64)


def folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The network with the normalization in its first convolution, which reads PIXELS. Unchanged if
    the images go through something else first, or are padded with anything but zeros.
    """
    graph = proto.graph
    chain, values = _chain(graph), constants(graph)
    if chain is None or chain[-1].input[1] not in values:
        return proto
    cast, scaling, shifting, first = chain
    weight = values[first.input[1]].astype(np.float64)
    groups = [option.i for option in first.attribute if option.name == "group"]
    inputs, along = weight.shape[1], (1, -1) + (1,) * (weight.ndim - 2)
    scale, offset = (_per_channel(node, values, inputs) for node in (scaling, shifting))
    if scale is None or offset is None or groups not in ([], [1]):
        return proto
    inside = (weight * offset.reshape(along)).sum(1, keepdims=True) / LARGEST
    more = -(-(inputs + 1) // MULTIPLE) * MULTIPLE - inputs
    unused = np.zeros((weight.shape[0], more - 1, *weight.shape[2:]))
    joined = np.concatenate([weight * scale.reshape(along), inside, unused], 1)
    sides = np.zeros(2 * weight.ndim, np.int64)
    sides[weight.ndim + 1] = more
    added = {WEIGHT: joined.astype(np.float32), CHANNELS: sides, INSIDE: np.uint8(LARGEST)}
    for name, value in added.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    first.input[0], first.input[1] = PIXELS, WEIGHT
    cast.input[0], cast.output[0] = PADDED, PIXELS
    graph.node.remove(scaling)
    graph.node.remove(shifting)
    pad = helper.make_node("Pad", [IMAGES, CHANNELS, INSIDE], [PADDED], name="pixel_channels")
    graph.node.insert(0, pad)
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(proto)


def read_directly(graph: onnx.GraphProto) -> None:
    """Lets the quantized network read the pixels, whose scale is 1, as they are, in place."""
    rounding, values = _only_reader(graph, PIXELS, "QuantizeLinear"), constants(graph)
    if rounding is None:
        return
    scale, zero = (values.get(name) for name in rounding.input[1:3])
    if scale is None or zero is None or zero.dtype != np.uint8 or scale != 1 or zero != 0:
        return
    for node in _readers(graph, rounding.output[0]):
        node.input[list(node.input).index(rounding.output[0])] = PADDED
    cast = next(node for node in graph.node if PIXELS in node.output)
    graph.node.remove(rounding)
    graph.node.remove(cast)
