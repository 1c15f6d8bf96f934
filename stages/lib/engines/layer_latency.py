"""Measures the layers of a network one by one, with fewer and fewer channels: how long each takes
as ONNX Runtime executes it in int8 on this machine, for one image and on one thread.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from stages.lib.engines import latency, onnx_session
from stages.lib.models import prunable
from stages.lib.models.modes import evaluating, input_like
from stages.lib.models.origins import copied

# The widths that are measured, as shares of the layer's own. Between them one interpolates.
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
# A narrower input is not pruned: it holds the images' channels.
LEAST = 4
SECONDS = 0.01
SCALE = np.float32(0.02)


class Shape(NamedTuple):
    """What decides a layer's latency, besides the numbers of its channels.

    space: of its input: (height, width), or for a linear layer (rows,).
    options: of a convolution: attributes of ONNX's Conv; None for a linear layer.
    depthwise: whether each filter reads one channel: then both widths are equal.
    """

    space: tuple[int, ...]
    options: dict[str, Any] | None
    depthwise: bool = False

    @property
    def key(self) -> str:
        return repr(self)


def shapes(model: nn.Module, image_shape: Sequence[int]) -> dict[str, Shape]:
    """The shape of each convolution and linear layer that the forward pass calls, by name.

    image_shape: (channels, height, width).
    """
    found: dict[str, Shape] = {}

    def seen(layer: nn.Module, inputs: tuple[torch.Tensor, ...], name: str) -> None:
        if not inputs:  # called by keyword
            return
        given = inputs[0]
        if isinstance(layer, nn.Linear):
            found[name] = Shape((given.numel() // given.shape[-1],), None)
            return
        # torch pads the last side first, ONNX all beginnings first.
        sides = layer._reversed_padding_repeated_twice
        options = {
            "kernel_shape": list(layer.kernel_size),
            "strides": list(layer.stride),
            "dilations": list(layer.dilation),
            "pads": [*sides[::2][::-1], *sides[1::2][::-1]],
            "group": layer.groups,
        }
        depthwise = layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
        found[name] = Shape(tuple(given.shape[2:]), options, depthwise)

    model = copied(model)  # the hooks stay in the copy
    for name, layer in prunable.layers(model).items():
        layer.register_forward_pre_hook(partial(lambda name, *args: seen(*args, name), name))
    with torch.no_grad(), evaluating(model):
        model(input_like(model).new_zeros(1, *image_shape))
    return found


def _quantized(name: str, values: np.ndarray, zero: np.generic) -> tuple[list, list]:
    """The initializers and the node that make float32 `name` of integers."""
    made = {f"{name}_q": values, f"{name}_s": SCALE, f"{name}_z": zero}
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in made.items()]
    return tensors, [helper.make_node("DequantizeLinear", list(made), [name])]


def model(shape: Shape, inputs: int, outputs: int) -> bytes:
    """An ONNX network of a single int8 layer, its activations int8 on both sides.

    Images come with their channels last, as int8 kernels want them: inside a network they are so.
    """
    random = np.random.default_rng(0)
    if shape.options is None:
        sizes, given, answer = (outputs, inputs), [*shape.space, inputs], [*shape.space, outputs]
        last, first = [0, 1], [0, 1]
        operator, options = "Gemm", {"transB": 1}
    else:
        options = shape.options | ({"group": inputs} if shape.depthwise else {})
        sizes = (outputs, inputs // options["group"], *options["kernel_shape"])
        given, answer = [1, *shape.space, inputs], None
        axes = list(range(1, len(shape.space) + 1))
        first, last = [0, len(shape.space) + 1, *axes], [0, *[axis + 1 for axis in axes], 1]
        operator = "Conv"
    weights = random.integers(-127, 128, sizes, dtype=np.int8)
    tensors, nodes = _quantized("w", weights, np.int8(0))
    tensors.append(numpy_helper.from_array(SCALE, "s"))
    tensors.append(numpy_helper.from_array(np.asarray(np.uint8(0)), "z"))
    nodes += [
        helper.make_node("Transpose", ["images"], ["turned"], perm=first),
        helper.make_node("DequantizeLinear", ["turned", "s", "z"], ["x"]),
        helper.make_node(operator, ["x", "w"], ["y"], **options),
        helper.make_node("Relu", ["y"], ["relu"]),
        helper.make_node("QuantizeLinear", ["relu", "s", "z"], ["y_q"]),
        helper.make_node("Transpose", ["y_q"], ["logits"], perm=last),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, given)],
        [helper.make_tensor_value_info("logits", TensorProto.UINT8, answer)],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made).SerializeToString()


def widths(full: int, multiple: int) -> list[int]:
    """The widths that are measured of a side with `full` channels, ascending: multiples of
    `multiple`, and the full width.
    """
    if full <= max(LEAST, multiple):
        return [full]
    rounded = {min(full, max(1, round(full * share / multiple)) * multiple) for share in SHARES}
    return sorted(rounded | {full})


def _measured(shape: Shape, sides: list[tuple[int, int]]) -> list[float]:
    """The microseconds of a layer for each pair of widths, in turns."""
    calls = []
    for inputs, outputs in sides:
        execute = onnx_session.load(model(shape, inputs, outputs), 1, "a layer", spinning=False)
        given = (1, *shape.space, inputs) if shape.options else (*shape.space, inputs)
        images = np.random.default_rng(1).integers(0, 256, given, dtype=np.uint8)
        calls.append(partial(execute, images))
    return [one.median * 1e6 for one in latency.interleaved(calls, SECONDS, latency.perf_counter)]


def table(
    network: nn.Module, image_shape: Sequence[int], multiple: int
) -> Iterator[dict[str, Any]]:
    """Yields lines of records.LAYER_LATENCY: each layer at every pair of widths. Equal layers are
    measured once.

    multiple: of channels, as `structured_prune.multiple_of`.
    """
    known: dict[tuple, list[float]] = {}
    layers = prunable.layers(network)
    for name, shape in shapes(network, image_shape).items():
        weight = layers[name].weight
        groups = 1 if shape.options is None else shape.options["group"]
        outputs = widths(weight.shape[0], multiple)
        inputs = widths(weight.shape[1] * groups, multiple)
        sides = list(itertools.product(inputs, outputs))
        if shape.depthwise:
            sides = [(width, width) for width in outputs]
        elif groups > 1:
            sides = [(i, o) for i, o in sides if i % groups == 0 and o % groups == 0]
        key = (shape.key, *sides)
        if key not in known:
            known[key] = _measured(shape, sides)
        for (i, o), microseconds in zip(sides, known[key], strict=True):
            yield {"layer": name, "inputs": i, "outputs": o, "microseconds": microseconds}
