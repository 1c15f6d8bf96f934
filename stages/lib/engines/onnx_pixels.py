"""An int8 network's first convolution, on raw pixels: they are whole numbers from 0 to 255 already,
so that nothing is lost, and nothing computed, before it.

Normalisation a · x + b goes into that convolution. Its weights take a; b, which counts inside the
image and not in the zeros around it, becomes the weight of one more channel that is 255 inside the
image. Channels are a multiple of four then, as int8 kernels of x86 read them (with three, ONNX
Runtime copies every window of pixels first).
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from stages.lib.engines.onnx_session import IMAGES

# Tensors of the folded graph: images with their new channels, and the same in float32.
PADDED, PIXELS = "padded_images", "pixels"
WEIGHT, CHANNELS, INSIDE = "pixel_weight", "pixel_channels", "pixel_inside"
LARGEST = 255
# The range of PIXELS, which makes a step of 1 and a zero point of 0.
RANGE = (0.0, float(LARGEST))
MULTIPLE = 4


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The values that the graph holds, by name."""
    found = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]


def _only_reader(graph: onnx.GraphProto, name: str, operator: str) -> onnx.NodeProto | None:
    found = _readers(graph, name)
    outputs = {value.name for value in graph.output}
    fits = len(found) == 1 and found[0].op_type == operator and name not in outputs
    return found[0] if fits else None


def _chain(graph: onnx.GraphProto) -> list[onnx.NodeProto] | None:
    """Cast, Mul, Add and Conv, where these are what the images go through first."""
    name, found = IMAGES, []
    for operator in ("Cast", "Mul", "Add", "Conv"):
        node = _only_reader(graph, name, operator)
        if node is None:
            return None
        found.append(node)
        name = node.output[0]
    return found


def _per_channel(value: np.ndarray | None, channels: int) -> np.ndarray | None:
    if value is None or value.size not in (1, channels):
        return None
    if value.size == channels > 1 and value.shape[-3:] != (channels, 1, 1):
        return None
    return np.broadcast_to(value.reshape(-1), channels).astype(np.float64)


def folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which normalisation is part of the first convolution, which reads PIXELS; as it is
    where the images go through anything else first, or are padded with anything but zeros.
    """
    small = onnx.ModelProto()
    small.CopyFrom(proto)
    graph = small.graph
    chain = _chain(graph)
    if chain is None:
        return small
    cast, scaling, shifting, first = chain
    known = constants(graph)
    options = {one.name: helper.get_attribute_value(one) for one in first.attribute}
    weight = known.get(first.input[1])
    if weight is None or first.input[0] != shifting.output[0] or options.get("group", 1) != 1:
        return small
    inputs = weight.shape[1]
    scale, offset = (
        _per_channel(next((known[name] for name in node.input if name in known), None), inputs)
        for node in (scaling, shifting)
    )
    if scale is None or offset is None:
        return small
    along = (1, inputs) + (1,) * (weight.ndim - 2)
    wide = weight.astype(np.float64)
    inside = (wide * offset.reshape(along)).sum(1, keepdims=True) / LARGEST
    more = -(-(inputs + 1) // MULTIPLE) * MULTIPLE - inputs
    unused = np.zeros((weight.shape[0], more - 1, *weight.shape[2:]))
    joined = np.concatenate([wide * scale.reshape(along), inside, unused], 1)
    sides = [0] * (2 * weight.ndim)
    sides[weight.ndim + 1] = more
    graph.initializer.extend(
        [
            numpy_helper.from_array(joined.astype(np.float32), WEIGHT),
            numpy_helper.from_array(np.array(sides, np.int64), CHANNELS),
            numpy_helper.from_array(np.array(LARGEST, np.uint8), INSIDE),
        ]
    )
    first.input[0], first.input[1] = PIXELS, WEIGHT
    cast.input[0], cast.output[0] = PADDED, PIXELS
    graph.node.remove(scaling)
    graph.node.remove(shifting)
    pad = helper.make_node("Pad", [IMAGES, CHANNELS, INSIDE], [PADDED], name="pixel_channels")
    graph.node.insert(0, pad)
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(small)


def read_directly(graph: onnx.GraphProto) -> None:
    """Has the quantized network read the pixels as they are, in place: a step of 1 from 0 is what
    they have.
    """
    rounding = _only_reader(graph, PIXELS, "QuantizeLinear")
    if rounding is None:
        return
    known = constants(graph)
    scale, zero = (known.get(name) for name in rounding.input[1:3])
    if scale is None or zero is None or zero.dtype != np.uint8 or scale != 1 or zero != 0:
        return
    for node in _readers(graph, rounding.output[0]):
        node.input[list(node.input).index(rounding.output[0])] = PADDED
    cast = next(node for node in graph.node if PIXELS in node.output)
    graph.node.remove(rounding)
    graph.node.remove(cast)
