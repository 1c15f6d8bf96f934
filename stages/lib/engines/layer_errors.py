"""What int8 costs each layer alone: the error of its output if its inputs and weights are rounded,
and nothing else is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from stages.lib.engines import int8_layers, onnx_pixels
from stages.lib.engines.calibration import Range


def noisiest(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of `table`, the noisiest layer first, exact ones last."""
    return sorted(lines, key=lambda line: (line["decibels"] is None, line["decibels"]))


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * float(np.log10(signal / noise)) if signal and noise else None


def table(
    exact: onnx.ModelProto,
    proto: onnx.ModelProto,
    ranges: Mapping[str, Range],
    images: torch.Tensor,
    bits: int,
    threads: int,
) -> list[dict[str, Any]]:
    """For each layer: its name, and the signal-to-noise ratio of its output in decibels
    (records.LAYER_NOISE). None if the output is exact or zero.

    exact: the network before its weights are rounded, with the same layers.
    proto: the network that is quantized, perhaps with rounded weights and corrected biases.
    ranges: of the activations, as they are quantized; an input without one is exact.
    images: uint8 [n, c, h, w].
    """
    measured = onnx.ModelProto.FromString(exact.SerializeToString())
    graph, layers, names = measured.graph, int8_layers.layers(exact.graph), []
    quantized, constants = int8_layers.layers(proto.graph), onnx_pixels.constants(proto.graph)
    for number, (layer, other) in enumerate(zip(layers, quantized, strict=True)):
        weights = int8_layers.weight(proto.graph, other.weight)
        rounded = int8_layers.nearest(weights, layer.axis, bits)
        int8_layers.put(graph, f"rounded_{number}", rounded)
        given = layer.node.input[0]
        if given in ranges:
            low, high = min(ranges[given][0], 0.0), max(ranges[given][1], 0.0)
            scale = (high - low) / 255 or 1.0
            int8_layers.put(graph, f"scale_{number}", np.float32(scale))
            zero = np.asarray(np.clip(round(-low / scale), 0, 255), np.uint8)
            graph.initializer.append(onnx.numpy_helper.from_array(zero, f"zero_{number}"))
            code, given_rounded = f"code_{number}", f"input_{number}"
            ends = [f"scale_{number}", f"zero_{number}"]
            graph.node.append(helper.make_node("QuantizeLinear", [given, *ends], [code]))
            graph.node.append(helper.make_node("DequantizeLinear", [code, *ends], [given_rounded]))
            given = given_rounded
        inputs = [given, f"rounded_{number}"]
        if len(other.node.input) > 2:
            bias = other.node.input[2]
            if bias in constants:
                int8_layers.put(graph, f"bias_{number}", constants[bias])
                bias = f"bias_{number}"
            inputs.append(bias)
        output, own = layer.node.output[0], [f"{what}_{number}" for what in ("y", "d", "n", "s")]
        options = int8_layers.attributes(layer.node)
        graph.node.append(helper.make_node(layer.node.op_type, inputs, own[:1], **options))
        graph.node.append(helper.make_node("Sub", [own[0], output], [own[1]]))
        graph.node.append(helper.make_node("ReduceSumSquare", [own[1]], [own[2]], keepdims=0))
        graph.node.append(helper.make_node("ReduceSumSquare", [output], [own[3]], keepdims=0))
        names += own[2:]
    sums = np.zeros(len(names))
    for batch in int8_layers.run(measured, names, images, threads) if names else ():
        sums += np.array(batch, dtype=np.float64)
    pairs = zip(sums[::2], sums[1::2], strict=True)
    return [
        {"layer": layer.name, "decibels": _decibels(signal, noise)}
        for layer, (noise, signal) in zip(layers, pairs, strict=True)
    ]
