"""Equalizes layers before int8 (Nagel et al., Data-Free Quantization Through Weight Equalization
and Bias Correction, ICCV 2019): what one layer multiplies a channel by, the next divides by. The
network computes the same, and no channel of an activation is much narrower than the others.
"""

from collections.abc import Iterator

import numpy as np
import onnx

from stages.lib.engines import int8_layers
from stages.lib.engines.int8_layers import Layer

# f(s·x) = s·f(x) for s > 0, channel by channel.
HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten")
ROUNDS = 20


def _pairs(graph: onnx.GraphProto) -> Iterator[tuple[Layer, Layer]]:
    """Layers whose output reaches one other layer alone, through homogeneous operations."""
    known = {id(layer.node): layer for layer in int8_layers.layers(graph)}
    readers: dict[str, list[onnx.NodeProto]] = {output.name: [] for output in graph.output}
    ends = set(readers)
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    uses = [layer.weight for layer in known.values()]
    for layer in known.values():
        name = layer.node.output[0]
        while name not in ends and len(readers.get(name, [])) == 1:
            (node,) = readers[name]
            if id(node) in known and node.input[0] == name:
                second = known[id(node)]
                if uses.count(layer.weight) == uses.count(second.weight) == 1:
                    yield layer, second
            if node.op_type not in HOMOGENEOUS:
                break
            name = node.output[0]


def _by_input(layer: Layer, weights: np.ndarray, channels: int) -> np.ndarray | None:
    """A view of a layer's weights, [channels, …], one row for each input channel; None if its
    inputs are not these channels, each as often as the others.
    """
    groups = int8_layers.attributes(layer.node).get("group", 1)
    if groups > 1:
        depthwise = weights.shape[1] == 1 and len(weights) == channels == groups
        return weights.reshape(channels, -1) if depthwise else None
    turned = np.moveaxis(weights, 1 - layer.axis, 0)
    return None if len(turned) % channels else turned.reshape(channels, -1)


def equalized(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes the same, in which the largest weight of each channel is equal on both
    sides, as far as layers follow each other.
    """
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = proto.graph
    pairs = list(_pairs(graph))
    values = {
        name: int8_layers.weight(graph, name)
        for pair in pairs
        for layer in pair
        for name in (layer.weight, *layer.node.input[2:3])
        if name
    }
    for _ in range(ROUNDS if pairs else 0):
        for first, second in pairs:
            rows = np.moveaxis(values[first.weight], first.axis, 0)
            channels = len(rows)
            columns = _by_input(second, values[second.weight], channels)
            if columns is None:
                continue
            out = np.abs(rows.reshape(channels, -1)).max(1)
            read = np.abs(columns).max(1)
            usable = (out > 0) & (read > 0)
            factors = np.where(usable, np.sqrt(out * np.where(usable, read, 1)), 1)
            factors = np.where(usable, out / factors, 1)  # r1 / sqrt(r1 · r2)
            _scale(values, first.weight, first.axis, 1 / factors)
            if len(first.node.input) > 2 and first.node.input[2]:
                values[first.node.input[2]] = values[first.node.input[2]] / factors
            groups = int8_layers.attributes(second.node).get("group", 1)
            axis = 0 if groups > 1 else 1 - second.axis
            times = values[second.weight].shape[axis] // channels
            _scale(values, second.weight, axis, np.repeat(factors, times))
    for name, value in values.items():
        int8_layers.put(graph, name, value)
    return proto


def _scale(values: dict[str, np.ndarray], name: str, axis: int, factors: np.ndarray) -> None:
    """Multiplies weights along an axis, in `values`."""
    shape = [1] * values[name].ndim
    shape[axis] = -1
    values[name] = values[name] * factors.reshape(shape)
