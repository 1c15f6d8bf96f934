"""Reduces the bytes of a quantized network's scales, norms and biases before it is packed."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.compression import batch_norm
from stages.lib.evaluation import difference
from stages.lib.models.origins import copied
from stages.lib.quantization import short_floats
from stages.lib.quantization.linear import Quantized, with_weights

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Allowed difference of the logits in float64, and in float32 for networks that need it.
TOLERANCE = 1e-4


class Compact(NamedTuple):
    """A network that computes with its quantized weights, and these weights."""

    model: nn.Module
    quantized: dict[str, Quantized]


@torch.no_grad()
def _followed(model: nn.Module, batch: torch.Tensor) -> dict[str, str]:
    """The batch norm that reads a layer's output, by the layer's name, for layers and norms that
    are called once. Others may read the output too. Nothing if the network minds hooks.
    """
    # Outputs by their identity. They are kept, so that no other tensor gets the same identity.
    outputs: dict[int, tuple[str, torch.Tensor]] = {}
    pairs: list[tuple[str, str]] = []

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            if isinstance(module, batch_norm.NORM):
                pairs.append((outputs.get(id(inputs[0]), ("",))[0], name))
            else:
                outputs[id(output)] = name, output

        return hook

    model = copied(model)
    for name, module in model.named_modules():
        if type(module) in LAYERS or isinstance(module, batch_norm.NORM):
            module.register_forward_hook(note(name))
    try:
        model(batch.clone())
    except Exception:  # noqa: BLE001 - the copy with hooks alone fails
        return {}
    layers, norms = Counter(layer for layer, _ in pairs), Counter(norm for _, norm in pairs)
    return {layer: norm for layer, norm in pairs if layer and layers[layer] == norms[norm] == 1}


@torch.no_grad()
def _without_scales(
    model: nn.Module, quantized: Mapping[str, Quantized], batch: torch.Tensor
) -> Compact:
    """Moves the scales of layers that a batch norm follows into the norm's weight; the scales
    become 1. The result is compared with the input; a layer for which they differ is not changed.

    model: its batch norms are `batch_norm.affine`.
    """
    small, parts = copied(model), dict(quantized)
    for layer, name in _followed(small, batch).items():
        weight, norm = f"{layer}.weight", small.get_submodule(name)
        if weight not in parts or norm.weight is None or norm.running_mean is None:
            continue
        scale = parts[weight].S.to(norm.weight)
        bias = small.get_submodule(layer).bias
        if bias is not None:
            norm.bias.add_(norm.weight * bias)
            bias.zero_()
        norm.weight.mul_(scale)
        parts[weight] = parts[weight]._replace(S=torch.ones_like(parts[weight].S))
    small = with_weights(small, parts)
    same = difference.largest(model, small, batch) <= TOLERANCE
    return Compact(small, parts) if same else Compact(copied(model), dict(quantized))


@torch.no_grad()
def compacted(model: nn.Module, quantized: Mapping[str, Quantized], batch: torch.Tensor) -> Compact:
    """A network that computes the same as `model` with its quantized weights, except for rounding,
    in fewer bytes: batch norms become a · x + b, scales move into batch norms that follow, and all
    other floats become short floats if these can represent them.

    batch: some normalized images on the network's device.
    """
    small = _without_scales(batch_norm.affine(with_weights(model, quantized)), quantized, batch)
    for name, parameter in small.model.named_parameters():
        if name not in small.quantized and bool(torch.isfinite(parameter.half()).all()):
            parameter.copy_(short_floats.rounded(parameter))
    return small
