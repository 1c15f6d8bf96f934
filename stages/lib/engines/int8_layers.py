"""The layers of an ONNX network that become int8: their weights, and the grid onto which ONNX
Runtime's tools round these.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from stages.lib.engines import onnx_pixels, onnx_session
from stages.lib.engines.onnx_session import IMAGES

# The activations of a whole batch are in memory at once.
BATCH = 32
PIXELS = 32 * 32


class Layer(NamedTuple):
    """A convolution or matrix product with constant weights.

    weight: the name of its initializer.
    axis: of the weights, along which its outputs lie. There is a scale for each.
    """

    node: onnx.NodeProto
    weight: str
    axis: int

    @property
    def name(self) -> str:
        """Its name in the network, without the exporter's: "/network/conv1/Conv" → "conv1"."""
        parts = self.node.name.strip("/").split("/")
        return ".".join(parts[1:-1]) or self.node.name


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """The attributes of a node, as Python's values."""
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def layers(graph: onnx.GraphProto) -> list[Layer]:
    """The layers in the order of execution."""
    constants, found = {value.name for value in graph.initializer}, []
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in constants:
            columns = node.op_type == "MatMul" or (
                node.op_type == "Gemm" and not attributes(node).get("transB")
            )
            found.append(Layer(node, node.input[1], int(columns)))
    return found


def weight(graph: onnx.GraphProto, name: str) -> np.ndarray:
    """The values of an initializer, float64."""
    return onnx_pixels.constants(graph)[name].astype(np.float64)


def put(graph: onnx.GraphProto, name: str, values: np.ndarray) -> None:
    """Sets or adds an initializer, float32, in place."""
    tensor = numpy_helper.from_array(values.astype(np.float32), name)
    for value in graph.initializer:
        if value.name == name:
            value.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)


def most(bits: int) -> int:
    """The largest code: 127 for 8 bits; 64 for 7, as ONNX Runtime's `reduce_range` has it."""
    return 127 if bits == 8 else 64


def scales(weights: np.ndarray, axis: int, bits: int) -> np.ndarray:
    """The step of each output's weights, in the shape that multiplies them."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    return np.where(largest > 0, largest, 1.0) / most(bits)


def nearest(weights: np.ndarray, axis: int, bits: int) -> np.ndarray:
    """The weights rounded to the nearest multiple of their step."""
    steps = scales(weights, axis, bits)
    return np.clip(np.round(weights / steps), -most(bits), most(bits)) * steps


def batch_size(images: torch.Tensor) -> int:
    """How many images are executed at a time."""
    height, width = images.shape[2:]
    return max(1, min(BATCH, BATCH * PIXELS // (height * width)))


def run(
    proto: onnx.ModelProto, names: Sequence[str], images: torch.Tensor, threads: int
) -> Iterator[list[np.ndarray]]:
    """Yields tensors of the graph for each batch of calibration images, uint8 [n, c, h, w].

    names: of tensors; they become the outputs.
    """
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnx_session.session(proto.SerializeToString(), threads, optimized=False)
    for batch in images.split(batch_size(images)):
        yield session.run(list(names), {IMAGES: batch.contiguous().numpy()})
