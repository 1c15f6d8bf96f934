"""Quantization-aware training with pruning: the network computes with the weights of its packed
file.

Every step computes with pruned and quantized weights. The gradient is applied to float32 weights as
if there were no rounding (straight-through estimator: Bengio, Léonard and Courville, 2013; Jacob et
al., 2018). The sparsity of each layer rises along a cubic curve (Zhu and Gupta, To prune, or not to
prune, 2017). Towards the end, masks and scales are frozen.
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

# How often in a training masks and scales are chosen again, and how often the plan: as weights
# change, so does the entropy of their codes, and a plan made once would miss its size.
REFRESHES = 40
PLANS = 2
# After these shares of the steps, the sparsity is reached, and masks and scales are frozen.
RAMP = 0.5
FREEZE = 0.75


class QuantizationAware(loop.TrainingScheme):
    """A scheme for `loop.fit`.

    planner: chooses sparsity and bits of each weight tensor; takes the weights by name.
    begin: the sparsity, below 1, from which each layer starts.
    first: the planner's plan for the initial weights, if it is known.
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

    @torch.no_grad()
    def refresh(self, model: nn.Module, progress: float) -> None:
        """Chooses masks and scales again, from the float32 weights."""
        left = (1 - min(1.0, progress / RAMP)) ** 3
        for name, choice in self.plan.items():
            weight = model.get_parameter(name)
            sparsity = choice.sparsity + (self.begin[name] - choice.sparsity) * left
            # If the plan asks for no more zeros than there are, removed weights stay removed.
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
        """Q, S and Z of every weight in the plan."""
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
