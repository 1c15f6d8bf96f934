"""Symmetric quantization whose scales make the squared error least, for few bits."""

from collections.abc import Sequence

import torch

from stages.lib.quantization import short_floats
from stages.lib.quantization.linear import Quantized, limits

# Shares of the largest magnitude that the largest code may stand for: clipping the few largest
# weights pays where codes are few.
CLIPS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Enough to compare choices by; the fit to the codes makes up for most of the rest.
COARSE = (0.4, 0.6, 0.8, 1.0)
# The least that a scale may be: below, a float16 becomes coarse.
LEAST = torch.finfo(torch.float16).tiny


def fraction_bits(bits: int) -> int:
    """Of the scales for codes of so many bits: few enough to store, and enough that rounding moves
    the largest code by an eighth of a step at most (up to 9 bits; a float16 has no more).
    """
    needed = max(short_floats.FRACTION_BITS, bits + 1)
    return min(needed, short_floats.MOST_FRACTION_BITS)


def scales(
    weight: torch.Tensor, bits: int, granularity: str, clips: Sequence[float] = CLIPS
) -> torch.Tensor:
    """S per tensor ([]) or output channel ([channels]), a short float each, that makes
    Σ (x − S · Q)² small: the best of a grid of clipped ranges, and of the least squares fit to its
    codes (S = Σ x · Q / Σ Q²).

    A tensor or channel of zeros has S = 1. clips: the shares of the largest magnitude to try.
    """
    _, top = limits(bits, "symmetric")
    flat = weight.detach().float()
    flat = flat.flatten(1) if granularity == "channel" and weight.dim() else flat.reshape(1, -1)
    largest = flat.abs().amax(1, keepdim=True)
    best = torch.full_like(largest, float("inf"))
    found = torch.ones_like(largest)

    def consider(scale: torch.Tensor) -> None:
        nonlocal best, found
        scale = short_floats.rounded(scale.clamp_min(LEAST), fraction_bits(bits))
        rounded = (flat / scale).round_().clamp_(-top, top)
        error = (flat - rounded * scale).square_().sum(1, keepdim=True)
        better = error < best
        best, found = torch.where(better, error, best), torch.where(better, scale, found)

    for clip in clips:
        consider(clip * largest / top)
    fitted = (flat / found).round_().clamp_(-top, top)
    squares = fitted.square().sum(1, keepdim=True)
    consider(torch.where(squares > 0, (flat * fitted).sum(1, keepdim=True) / squares, found))
    found = torch.where(largest > 0, found, 1.0).squeeze(1)
    return found if granularity == "channel" and weight.dim() else found.squeeze(0)


def along(scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A [] or [channels] scale shaped to broadcast over the weight's first dimension."""
    return scale.view(-1, *[1] * (weight.dim() - 1)) if scale.dim() else scale


def codes(weight: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Q as float32, whole numbers from −top to top; what is zero stays zero."""
    _, top = limits(bits, "symmetric")
    return (weight / along(scale, weight)).round().clamp(-top, top)


def quantize(
    weight: torch.Tensor, bits: int, granularity: str, scale: torch.Tensor | None = None
) -> Quantized:
    """Q, S and Z = 0 on the CPU; `scale`: given, rather than that of the least error."""
    scale = scales(weight, bits, granularity) if scale is None else scale
    container = torch.int8 if bits <= 8 else torch.int16
    found = codes(weight.detach(), scale, bits).to(container).cpu()
    zero = torch.zeros(scale.shape, dtype=torch.int32)
    return Quantized(found.contiguous(), scale.cpu(), zero)
