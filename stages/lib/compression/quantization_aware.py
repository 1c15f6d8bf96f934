"""Quantization-aware training, for few bits and many zeros: the network computes with what the file
will hold.

Every step computes with pruned and quantized weights, and the gradient goes to float32 ones behind
them as if there were no rounding (the straight-through estimator: Bengio, Léonard and Courville,
2013; Jacob et al., 2018). Each layer goes to its sparsity along a cubic (Zhu and Gupta, To prune,
or not to prune, 2017); towards the end masks and scales are frozen.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.func import functional_call

from stages.lib.compression.allocation import Choice
from stages.lib.pruning import masks
from stages.lib.quantization import linear, mse_scales
from stages.lib.quantization.linear import Quantized
from stages.lib.training import loop

# So many times in a training do masks and scales follow the weights, and so many times the plan: as
# weights move, so does the entropy of their codes, and a plan made once would not hold its size.
REFRESHES = 40
PLANS = 2
# Shares of the steps after which the sparsity is reached, and masks and scales are frozen.
RAMP = 0.5
FREEZE = 0.75


class QuantizationAware(loop.TrainingScheme):
    """A scheme for `loop.fit`.

    planner: from weights by name to sparsity and bits of each.
    begin: the sparsity, below 1, from which each layer starts.
    first: what the planner says of the weights to begin with, where that is known.
    """

    def __init__(
        self,
        planner: Callable[[Mapping[str, torch.Tensor]], Mapping[str, Choice]],
        begin: Mapping[str, float],
        granularity: str,
        first: Mapping[str, Choice] | None = None,
    ) -> None:
        self.planner, self.begin, self.granularity = planner, begin, granularity
        self.plan: Mapping[str, Choice] = first or {}
        self.masks: masks.Masks = {}
        self.scales: dict[str, torch.Tensor] = {}
        self.planned, self.refreshed = -1 if first is None else 0, -1
        self.frozen = False

    def _sparsity(self, name: str, progress: float) -> float:
        target, left = self.plan[name].sparsity, (1 - min(1.0, progress / RAMP)) ** 3
        return target + (self.begin[name] - target) * left

    @torch.no_grad()
    def refresh(self, model: nn.Module, progress: float) -> None:
        """Chooses masks and scales anew from the float32 weights."""
        for name, choice in self.plan.items():
            weight = model.get_parameter(name)
            sparsity = self._sparsity(name, progress)
            # What is gone stays gone, where the plan asks for no more zeros than there are.
            mask = masks.keep_largest(weight.abs(), sparsity) & (weight != 0)
            self.masks[name] = mask.to(weight.dtype)
            self.scales[name] = mse_scales.scales(
                weight * self.masks[name], choice.bits, self.granularity
            )

    def before_step(self, model: nn.Module, progress: float) -> None:
        if self.frozen:
            return
        self.frozen = progress >= FREEZE
        plans, refreshes = int(progress * PLANS), int(progress * REFRESHES)
        if self.frozen or refreshes > self.refreshed:
            masks.apply_(model, self.masks)
        if self.frozen or plans > self.planned:
            self.plan = self.planner({name: model.get_parameter(name) for name in self.begin})
        if self.frozen or refreshes > self.refreshed:
            self.refresh(model, progress)
        self.planned, self.refreshed = plans, refreshes

    def logits(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        compressed = {}
        for name, choice in self.plan.items():
            # The value is that of the quantized weight, the gradient that of the float32 one. What
            # is pruned has none: below a batch norm whose filter is gone it would have no bounds.
            weight = model.get_parameter(name) * self.masks[name]
            codes = mse_scales.codes(weight.detach(), self.scales[name], choice.bits)
            rounded = codes * linear.along(self.scales[name], weight)
            compressed[name] = weight + (rounded - weight.detach())
        return functional_call(model, compressed, (inputs,))

    def quantized(self, model: nn.Module) -> dict[str, Quantized]:
        """Q, S and Z of every planned weight."""
        return {
            name: mse_scales.quantize(
                model.get_parameter(name).detach() * self.masks[name],
                choice.bits,
                self.granularity,
                self.scales[name],
            )
            for name, choice in self.plan.items()
        }

    def network(self, model: nn.Module) -> nn.Module:
        return linear.with_weights(model, self.quantized(model))
