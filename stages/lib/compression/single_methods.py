"""Controls of `exact_rate`: the same rate at every moment by quantization alone, or by pruning
alone. In both the weights descend the loss L without the rate.
"""

import math

import torch
from torch import nn

from stages.lib.compression import rate
from stages.lib.compression.exact_rate import ExactRate


class QuantizedAlone(ExactRate):
    """Steps alone meet the rate; nothing but rounding makes zeros."""

    @property
    def price(self) -> torch.Tensor:
        return torch.zeros_like(self.steps_done)


class PrunedAlone(QuantizedAlone):
    """Weights below one magnitude in all layers are zero. The others have 8-bit codes, whose
    largest is a layer's largest weight. Pruned weights go on descending, and may come back (Lin et
    al., Dynamic model pruning with feedback, 2020).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.threshold = self.log_steps.exp().mean()

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        weights = x * self.flat.spread(self.log_steps.exp())
        return rate.codes(x) * (weights.abs() >= self.threshold)

    @torch.no_grad()
    def hold(self, model: nn.Module, bits: float) -> None:
        weights = self.gathered(model).abs()
        largest = self.flat.largest(weights)
        self.log_steps.copy_(
            (largest / rate.LARGEST).clamp_min(torch.finfo(largest.dtype).tiny).log()
        )
        codes = rate.codes(self.gathered(model) / self.flat.spread(self.log_steps.exp()))

        def bits_at(shift: float) -> float:
            return self.bits_of(codes * (weights >= self.threshold * math.exp(shift)))

        self.threshold *= math.exp(rate.shift_for(bits_at, bits))

    def before_step(self, model: nn.Module, progress: float) -> None:
        super().before_step(model, progress)
        self.step_rate.zero_()
