"""Corrects biases before int8 (Nagel et al., Data-Free Quantization Through Weight Equalization and
Bias Correction, ICCV 2019): rounded weights shift the mean of what a layer computes; the bias takes
the shift back.
"""

import numpy as np
import onnx
import torch
from onnx import helper

from stages.lib.engines import int8_layers


def corrected(
    proto: onnx.ModelProto, images: torch.Tensor, bits: int, threads: int
) -> onnx.ModelProto:
    """A copy in which the bias of each layer has grown by E[(W − Q(W)) x], by output channel, over
    calibration images and positions. Products without a bias (MatMul) stay as they are.

    images: uint8 [n, c, h, w].
    bits: of int8 weights.
    """
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = proto.graph
    layers = [layer for layer in int8_layers.layers(graph) if layer.node.op_type != "MatMul"]
    measured = onnx.ModelProto.FromString(proto.SerializeToString())
    for number, layer in enumerate(layers):
        weights = int8_layers.weight(graph, layer.weight)
        rest = weights - int8_layers.nearest(weights, layer.axis, bits)
        int8_layers.put(measured.graph, f"rest_{number}", rest)
        node = helper.make_node(
            layer.node.op_type, [layer.node.input[0], f"rest_{number}"], [f"shift_{number}"],
            **int8_layers.attributes(layer.node),
        )  # fmt: skip
        measured.graph.node.append(node)
    names = [f"shift_{number}" for number in range(len(layers))]
    sums, count = [0.0] * len(layers), 0
    for batch in int8_layers.run(measured, names, images, threads):
        count += len(batch[0])
        for number, shift in enumerate(batch):
            means = shift.mean(axis=(0, *range(2, shift.ndim)), dtype=np.float64)
            sums[number] = sums[number] + means * len(shift)
    for number, (layer, total) in enumerate(zip(layers, sums, strict=True)):
        if len(layer.node.input) < 3 or not layer.node.input[2]:
            del layer.node.input[2:]
            layer.node.input.append(f"corrected_bias_{number}")
            bias = np.zeros(len(total))
        else:
            bias = int8_layers.weight(graph, layer.node.input[2])
        # Two layers may share a bias.
        layer.node.input[2] = f"corrected_bias_{number}"
        int8_layers.put(graph, layer.node.input[2], bias + total / count)
    return proto
