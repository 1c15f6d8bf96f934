"""Symmetric quantization whose scales minimize the mean squared error (MSE), for few bits."""

from collections.abc import Sequence

import torch

from stages.lib.quantization import short_floats
from stages.lib.quantization.linear import Quantized, along, integer_type, limits, scale_shape

# Clipping ratios: the largest code stands for this share of the largest magnitude. Clipping the few
# largest weights reduces the error if there are few codes.
CLIPS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Enough to compare choices: the fit to the codes makes up for most of the difference.
COARSE_CLIPS = (0.4, 0.6, 0.8, 1.0)
# The smallest scale: below it, float16 becomes coarse.
LEAST = torch.finfo(torch.float16).tiny


def fraction_bits(bits: int) -> int:
    """The fraction bits of scales for codes of `bits`. They are enough that rounding a scale moves
    the largest code by an eighth of a step at most (up to 9 bits; float16 has no more).
    """
    needed = max(short_floats.FRACTION_BITS, bits + 1)
    return min(needed, short_floats.MOST_FRACTION_BITS)


def scales(
    weight: torch.Tensor, bits: int, granularity: str, clips: Sequence[float] = CLIPS
) -> torch.Tensor:
    """Scales S, [] per tensor or [channels] per output channel, that make Σ (x − S · Q)² small.

    For each clipping ratio, S = clip · max |x| / qmax and the least-squares fit S = Σ x · Q / Σ Q²
    to its codes Q are tried; the best is taken. Scales are short floats. A tensor or channel of
    zeros has S = 1.

    clips: the clipping ratios to try, in (0, 1].
    """
    _, top = limits(bits, "symmetric")
    shape = scale_shape(weight, granularity)
    rows = weight.detach().float().reshape(shape.numel(), -1)
    largest = rows.abs().amax(1, keepdim=True)
    best, least_error = torch.ones_like(largest), torch.full_like(largest, float("inf"))

    def consider(scale: torch.Tensor) -> None:
        nonlocal best, least_error
        scale = short_floats.rounded(scale.clamp_min(LEAST), fraction_bits(bits))
        rounded = (rows / scale).round_().clamp_(-top, top)
        error = (rows - rounded * scale).square_().sum(1, keepdim=True)
        better = error < least_error
        best = torch.where(better, scale, best)
        least_error = torch.where(better, error, least_error)

    for clip in clips:
        consider(clip * largest / top)
    fitted = (rows / best).round_().clamp_(-top, top)
    squares = fitted.square().sum(1, keepdim=True)
    consider(torch.where(squares > 0, (rows * fitted).sum(1, keepdim=True) / squares, best))
    return torch.where(largest > 0, best, 1.0).reshape(shape)


def codes(weight: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Q = clamp(round(x / S), −qmax, qmax) as float32. Zeros stay zero."""
    _, top = limits(bits, "symmetric")
    return (weight / along(scale, weight)).round().clamp(-top, top)


def quantize(
    weight: torch.Tensor, bits: int, granularity: str, scale: torch.Tensor | None = None
) -> Quantized:
    """Q, S and Z = 0 on the CPU. scale: S; by default the one with the least error."""
    scale = scales(weight, bits, granularity) if scale is None else scale
    integers = codes(weight.detach(), scale, bits).to(integer_type(bits)).cpu()
    zero = torch.zeros(scale.shape, dtype=torch.int32)
    return Quantized(integers.contiguous(), scale.cpu(), zero)
