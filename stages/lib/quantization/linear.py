"""Linear quantization by hand: x ≈ S · (Q − Z), with integer codes Q, a scale S, a zero point Z.

After Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference (CVPR 2018), and Krishnamoorthi, Quantizing deep convolutional
networks for efficient inference (2018). Zero is represented exactly, so pruned weights stay zero.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.core.records import LayerError
from stages.lib.models import checkpoints, prunable, registry
from stages.lib.models.origins import copied

KEY = "quantized"


class Quantized(NamedTuple):
    """A quantized tensor.

    Q: codes, the shape of the tensor; int8 up to 8 bits, else int16.
    S, Z: float32 and int32; [] per tensor, or [channels] per output channel (the first dimension).
    """

    Q: torch.Tensor
    S: torch.Tensor
    Z: torch.Tensor


def limits(bits: int, scheme: str) -> tuple[int, int]:
    """The smallest and largest code: −2^(bits−1) and 2^(bits−1) − 1 for "affine". "symmetric"
    leaves out the smallest, so that the range has the same length on both sides of zero.
    """
    top = 2 ** (bits - 1) - 1
    return -top - (scheme == "affine"), top


def integer_type(bits: int) -> torch.dtype:
    """The type in which codes of this width are stored."""
    return torch.int8 if bits <= 8 else torch.int16


def scale_shape(tensor: torch.Tensor, granularity: str) -> torch.Size:
    """The shape of S and Z: [] for "tensor", [channels] for "channel"."""
    return tensor.shape[:1] if granularity == "channel" else torch.Size()


def along(vector: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A [] or [channels] tensor shaped to broadcast over `tensor`'s first dimension."""
    return vector.view(-1, *[1] * (tensor.dim() - 1)) if vector.dim() else vector


def quantize(tensor: torch.Tensor, bits: int, scheme: str, granularity: str) -> Quantized:
    """Quantizes a float tensor: Q = clamp(round(x / S) + Z, qmin, qmax), with qmin and qmax the
    `limits`. A tensor or channel of zeros has S = 1 and Q = Z = 0.

    bits: 2…16.
    scheme: "affine": S = (max − min) / (qmax − qmin), with min ≤ 0 ≤ max, and
        Z = round(qmin − min / S); "symmetric": S = max |x| / qmax, Z = 0.
    granularity: "tensor", or "channel" for an S and Z per index of the first dimension.

    Raises ValueError for values that are not finite.
    """
    lowest, highest = limits(bits, scheme)
    if not torch.isfinite(tensor).all():
        raise ValueError("a tensor with infinite or undefined values cannot be quantized")
    # float64: at 16 bits, float32 would round (x / S) itself by up to 2^-9 of a step.
    values = tensor.detach().cpu().double()
    shape = scale_shape(values, granularity)
    rows = values.reshape(shape.numel(), -1)
    least, most = (ends.reshape(shape) for ends in (rows.amin(1), rows.amax(1)))
    least, most = least.clamp_max(0), most.clamp_min(0)
    if scheme == "symmetric":
        scale = torch.maximum(-least, most) / highest
    else:
        scale = (most - least) / (highest - lowest)
    # S is stored as float32; a smaller one than its smallest normal number would round to zero.
    tiny = torch.finfo(torch.float32).tiny
    scale = torch.where(scale > 0, scale.clamp_min(tiny), 1.0).float()
    exact = scale.double()
    zero = torch.zeros_like(exact) if scheme == "symmetric" else (lowest - least / exact).round()
    zero = torch.where(most > least, zero, 0.0).clamp(lowest, highest)
    codes = (values / along(exact, values)).round() + along(zero, values)
    codes = codes.clamp(lowest, highest).to(integer_type(bits))
    return Quantized(codes, scale, zero.to(torch.int32))


def steps(quantized: Quantized) -> torch.Tensor:
    """Q − Z as int32. 0 stands for the number zero in both schemes."""
    return quantized.Q.to(torch.int32) - along(quantized.Z, quantized.Q)


def dequantize(quantized: Quantized) -> torch.Tensor:
    """S · (Q − Z) as float32, the shape of Q."""
    return steps(quantized).float() * along(quantized.S, quantized.Q)


def layer_error(tensor: torch.Tensor, quantized: Quantized) -> LayerError:
    """The mean squared error of a quantized tensor, and what theory expects: S²/12, the variance of
    a rounding error that is uniform over one step (Bennett, 1948). Per channel: the mean over the
    channels. 0 for a tensor or channel of zeros, whose S means nothing.
    """
    difference = tensor.detach().cpu().double() - dequantize(quantized).double()
    codes = steps(quantized)
    used = codes.flatten(1).any(1) if quantized.S.dim() else codes.any()
    error = float((difference**2).mean())
    theory = float((quantized.S.double() ** 2 * used).mean() / 12)
    ranges = (end.item() for part in (quantized.S, quantized.Z) for end in part.aminmax())
    return LayerError(*ranges, error, theory, error / theory if theory else None)


def quantize_weights(
    model: nn.Module, bits: int, scheme: str, granularity: str
) -> dict[str, Quantized]:
    """Quantizes every prunable weight of the network, by parameter name."""
    return {
        name: quantize(weight, bits, scheme, granularity)
        for name, weight in prunable.weights(model).items()
    }


def with_weights(model: nn.Module, quantized: Mapping[str, Quantized]) -> nn.Module:
    """A copy of the network with the dequantized weights, which computes in float32."""
    other = copied(model)
    with torch.no_grad():
        for name, parts in quantized.items():
            other.get_parameter(name).copy_(dequantize(parts))
    return other


def save_model(path: Path, model: nn.Module, quantized: Mapping[str, Quantized]) -> int:
    """Writes the network with integer weights: NAME.Q, NAME.S and NAME.Z for each, and the rest as
    it is. Returns the file's size in bytes.
    """
    stored = checkpoints.tensors_of(model)
    for name, parts in quantized.items():
        del stored[name]
        stored |= {f"{name}.{field}": getattr(parts, field).contiguous() for field in "QSZ"}
    architecture = registry.portable(registry.architecture_of(model))
    header = {"architecture": architecture, "weights": sorted(quantized)}
    return checkpoints.save_tensors(path, stored, {KEY: header})


def load_model(path: Path, network: str | None = None) -> tuple[nn.Module, dict[str, Quantized]]:
    """Reads a file of `save_model`: the network with dequantized weights, and Q, S and Z by name.

    network: the custom network that the file may name. Errors are those of
    `checkpoints.load_model`.
    """
    stored, header = checkpoints.load_tensors(path, KEY)
    try:
        quantized = {
            name: Quantized(*(stored.pop(f"{name}.{field}") for field in "QSZ"))
            for name in header["weights"]
        }
        stored |= {name: dequantize(parts) for name, parts in quantized.items()}
        description = header["architecture"]
    except (KeyError, TypeError, RuntimeError):
        raise UserError(
            f"{path}: not a quantized network of this pipeline; {checkpoints.REMEDY}"
        ) from None
    return checkpoints.restore(path, stored, description, network), quantized
