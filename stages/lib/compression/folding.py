"""A quantized network in fewer bytes, before it is packed: the numbers beside its integers."""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.compression import batch_norm
from stages.lib.evaluation import difference
from stages.lib.quantization import short_floats
from stages.lib.quantization.linear import Quantized, with_weights

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Of the logits in float64; in float32, for networks that insist on it.
TOLERANCE = 1e-4


class Compact(NamedTuple):
    """A network that computes with its quantized weights, and these."""

    model: nn.Module
    quantized: dict[str, Quantized]


@torch.inference_mode()
def _followed(model: nn.Module, batch: torch.Tensor) -> dict[str, str]:
    """The batch norm that reads what a layer puts out, by the layer's name, where each is called
    once. Whether nobody else reads it is not known.
    """
    # Outputs by their identity: held, so that no other tensor gets the same.
    outputs: dict[int, tuple[str, torch.Tensor]] = {}
    pairs: list[tuple[str, str]] = []

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            if isinstance(module, batch_norm.NORM):
                pairs.append((outputs.get(id(inputs[0]), ("",))[0], name))
            else:
                outputs[id(output)] = name, output

        return hook

    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        if type(module) in LAYERS or isinstance(module, batch_norm.NORM):
            module.register_forward_hook(note(name))
    model(batch)
    layers, norms = Counter(layer for layer, _ in pairs), Counter(norm for _, norm in pairs)
    return {layer: norm for layer, norm in pairs if layer and layers[layer] == norms[norm] == 1}


@torch.no_grad()
def _without_scales(
    model: nn.Module, quantized: Mapping[str, Quantized], batch: torch.Tensor
) -> Compact:
    """The scales of layers that a batch norm follows become part of its weight: they are 1 then.

    model: its batch norms are `batch_norm.affine`. What comes out is compared with what went in,
    and where it differs nothing is changed.
    """
    small, parts = copy.deepcopy(model), dict(quantized)
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
    return Compact(small, parts) if same else Compact(copy.deepcopy(model), dict(quantized))


@torch.no_grad()
def compacted(model: nn.Module, quantized: Mapping[str, Quantized], batch: torch.Tensor) -> Compact:
    """A network that computes the same as `model` with its weights quantized so, but for rounding,
    in fewer bytes: batch norms as a · x + b; scales in these, where they follow; all else but the
    integers as short floats where these can hold it.

    batch: some normalized images on the network's device.
    """
    small = _without_scales(batch_norm.affine(with_weights(model, quantized)), quantized, batch)
    for name, parameter in small.model.named_parameters():
        if name not in small.quantized and bool(torch.isfinite(parameter.half()).all()):
            parameter.copy_(short_floats.rounded(parameter))
    return small
