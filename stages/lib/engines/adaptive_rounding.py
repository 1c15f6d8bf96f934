"""Rounds weights to int8 up or down, whichever leaves what the layer computes most as it is (Nagel
et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020).
"""

from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch.nn import functional

from stages.lib.engines import int8_layers
from stages.lib.engines.int8_layers import Layer

# The paper's rectified sigmoid, regularizer and schedule; fewer steps, as the networks are smaller.
STRETCH, SHIFT = 1.2, -0.1
STEPS, IMAGES, LEARNING_RATE = 600, 32, 1e-2
PULL, WARM_UP, BETA = 0.01, 0.2, (20.0, 2.0)

Compute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _operation(layer: Layer) -> Compute | None:
    """What the layer computes from its input and its weights, without the bias; None for what has
    no counterpart in torch here.
    """
    options = int8_layers.attributes(layer.node)
    if layer.node.op_type != "Conv":
        return lambda x, w: x.flatten(0, -2) @ (w.T if layer.axis == 0 else w)
    sides = options.get("pads") or [0] * 2 * len(options["kernel_shape"])
    half = len(sides) // 2
    # torch takes the last side first.
    padding = [side for last in reversed(range(half)) for side in (sides[last], sides[last + half])]
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[half]
    if options.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None

    def compute(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return convolve(
            functional.pad(x, padding), w, None, options.get("strides", 1), 0,
            options.get("dilations", 1), options.get("group", 1),
        )  # fmt: skip

    return compute


def _soft(logits: torch.Tensor) -> torch.Tensor:
    return (torch.sigmoid(logits) * STRETCH + SHIFT).clamp(0, 1)


def round_layer(
    weights: np.ndarray, axis: int, bits: int, inputs: torch.Tensor, compute: Compute
) -> np.ndarray:
    """The weights on their grid, each rounded up or down. Nearest rounding where that is better.

    inputs: of the layer for the calibration images, float32 [n, …].
    """
    steps = torch.from_numpy(int8_layers.scales(weights, axis, bits)).float()
    exact, largest = torch.from_numpy(weights).float(), int8_layers.most(bits)
    down = torch.floor(exact / steps)
    rest = (exact / steps - down).clamp(1e-3, 1 - 1e-3)
    share = ((rest - SHIFT) / STRETCH).clamp(1e-4, 1 - 1e-4)
    logits = torch.log(share / (1 - share)).requires_grad_(True)
    optimizer = torch.optim.Adam([logits], LEARNING_RATE)
    stream = torch.Generator().manual_seed(0)

    def on_grid(up: torch.Tensor) -> torch.Tensor:
        return (down + up).clamp(-largest, largest) * steps

    def error(used: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return compute(x, used - exact).pow(2)

    for step in range(STEPS):
        x = inputs[torch.randint(len(inputs), (IMAGES,), generator=stream)]
        up = _soft(logits)
        loss = error(on_grid(up), x).sum(1).mean()
        done = step / STEPS
        if done > WARM_UP:
            high, low = BETA
            beta = low + (high - low) * (1 + np.cos(np.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
            loss = loss + PULL * (1 - (2 * up - 1).abs().pow(beta)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        adaptive = on_grid((_soft(logits) >= 0.5).float())
        nearest = torch.from_numpy(int8_layers.nearest(weights, axis, bits)).float()
        errors = [sum(error(used, x).sum().item() for x in inputs.split(IMAGES))
                  for used in (adaptive, nearest)]  # fmt: skip
    return (adaptive if errors[0] < errors[1] else nearest).numpy()


def rounded(
    proto: onnx.ModelProto, images: torch.Tensor, bits: int, threads: int
) -> onnx.ModelProto:
    """A copy whose weights lie on the grid of int8, so that quantizing rounds nothing any more.

    images: calibration images, uint8 [n, c, h, w]. bits: of int8 weights.
    """
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    for layer in int8_layers.layers(proto.graph):
        compute = _operation(layer)
        if compute is None:
            continue
        batches = int8_layers.run(proto, [layer.node.input[0]], images, threads)
        inputs = torch.from_numpy(np.concatenate([batch for (batch,) in batches])).float()
        weights = int8_layers.weight(proto.graph, layer.weight)
        chosen = round_layer(weights, layer.axis, bits, inputs, compute)
        int8_layers.put(proto.graph, layer.weight, chosen)
    return proto
