"""Training at an exact rate: the codes of the weights need so many bits at every moment.

Each layer has a step s. The network computes with s · q, where q = round(W / s) is a weight's code;
the gradient passes as if there were no rounding (straight-through; the step's is that of Esser et
al., Learned step size quantization, 2020). No weight is masked: zero is a code like the others.

A common factor of all steps is found by bisection, so that the entropy of all codes is the target.
At that rate the factor trades loss for bits at the price

    λ = Σ ∂L/∂log s / −Σ ∂R/∂log s,

with the loss L and the rate R in bits per weight, so λ is what a bit is worth anywhere: weights and
the ratios of steps descend L + λ · R.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from stages.lib.compression import rate
from stages.lib.compression.flat_weights import FlatWeights
from stages.lib.evaluation import ranks
from stages.lib.models import modes, prunable
from stages.lib.models.uses import StandIns
from stages.lib.quantization import linear
from stages.lib.quantization.linear import Quantized
from stages.lib.training import loop

# The rate from which a network starts, in bits per weight.
FIRST = 3.0
# How often in a training the common factor is found again.
UPDATES = 400
# The peak of the learning rate of log s, and the decays of Adam, which takes its steps.
STEP_RATE, MEAN_DECAY, SQUARE_DECAY = 0.05, 0.9, 0.99
# The share that a training step leaves of the means of price, of |x| and of the largest |∂L/∂x|.
PRICE_DECAY, SCALE_DECAY, LARGEST_DECAY = 0.98, 0.9, 0.99
# The least mean of |x|, and the least slope of the rate by log s.
LEAST = 1e-3
# A layer's largest |x| is at least this, so that it has a code.
LEAST_CODE = 0.75
# The largest |∂L/∂x| of a step, relative to what is usual.
LIMIT = 3.0


class ExactRate(loop.TrainingScheme):
    """A scheme for `loop.fit`. It goes on where it stopped if it is given to another training.

    All state is in tensors on the network's device that are changed in place, and `logits` and
    `gradients` read nothing from them on the host: both can be captured in a CUDA graph.

    model: the network that will be trained.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = prunable.weights(model)
        self.flat = FlatWeights(weights)
        # Bits of all codes together: at the start of a training, and from its middle to its end.
        self.first_bits = self.last_bits = FIRST * self.flat.count
        self.updates = -1
        mean = self.flat.sums(self.flat.gathered(list(weights.values())).abs()) / self.flat.lengths
        # A layer of zeros has a step too.
        self.log_steps = mean.clamp_min(LEAST * mean.max()).clamp_min(LEAST**2).log()
        # Exponential means over training steps, as sums that start at 0.
        self.slopes = mean.new_zeros(2)
        self.scale, self.largest, self.mean, self.square = mean.new_zeros(4, len(mean))
        self.steps_done, self.step_rate = mean.new_zeros(()), mean.new_zeros(())
        # What the network computed with last: s · q of each layer, and x = W / s.
        self.leaves: list[torch.Tensor] = []
        self.x = self.flat.zeros()

    def aim(self, bits: float) -> None:
        """The next training goes from the rate where the last one ended to so many bits."""
        self.first_bits, self.last_bits = max(self.last_bits, bits), bits
        self.updates = -1

    @property
    def price(self) -> torch.Tensor:
        """λ, in nats of loss for a bit per weight."""
        of_loss, of_rate = self.slopes
        return (of_loss / of_rate.clamp_max(-LEAST)).neg().clamp_min(0)

    def gathered(self, model: nn.Module) -> torch.Tensor:
        """The matrix of the network's weights."""
        return self.flat.gathered([model.get_parameter(name).detach() for name in self.flat.names])

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """The codes of weights, from x = W / s; both as matrices."""
        return rate.codes(x)

    def _x(self, model: nn.Module) -> torch.Tensor:
        return self.gathered(model) / self.flat.spread(self.log_steps.exp())

    def bits_of(self, codes: torch.Tensor) -> float:
        """The entropy of all codes together."""
        # A training that has diverged goes on to its epoch's end, which says so.
        return float(rate.entropy(rate.histogram(codes.nan_to_num(), self.flat)))

    def bits(self, model: nn.Module) -> float:
        """The entropy of the network's codes."""
        return self.bits_of(self.codes(self._x(model)))

    @torch.no_grad()
    def hold(self, model: nn.Module, bits: float) -> None:
        """Moves all steps by one factor, so that the codes need so many bits. A step that would
        leave its layer no code at all stays below the layer's largest weight.
        """
        x = self._x(model)
        largest = self.flat.largest(x.abs())
        most = (largest / LEAST_CODE).log().masked_fill(largest == 0, math.inf)

        def shifts(shift: float) -> torch.Tensor:
            return most.clamp_max(shift)

        def bits_at(shift: float) -> float:
            return self.bits_of(rate.codes(x * self.flat.spread(torch.exp(-shifts(shift)))))

        self.log_steps += shifts(rate.shift_for(bits_at, bits))

    def before_step(self, model: nn.Module, progress: float) -> None:
        self.step_rate.fill_(loop.one_cycle(progress, STEP_RATE))
        update = int(progress * UPDATES)
        if update != self.updates:
            self.updates = update
            self.hold(model, rate.falling(progress, self.first_bits, self.last_bits))

    def logits(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        self.x = self._x(model)
        rounded = self.codes(self.x) * self.flat.spread(self.log_steps.exp())
        self.leaves = [weight.requires_grad_() for weight in self.flat.views(rounded)]
        with self._rounded(model):
            return model(inputs)

    def _rounded(self, model: nn.Module) -> StandIns:
        """Lets the network compute with its rounded weights."""
        weights = map(model.get_parameter, self.flat.names)
        return StandIns(dict(zip(weights, self.leaves, strict=True)))

    def gradients(
        self, model: nn.Module, loss: torch.Tensor, parameters: Sequence[nn.Parameter]
    ) -> Sequence[torch.Tensor | None]:
        weights = [id(model.get_parameter(name)) for name in self.flat.names]
        others = [parameter for parameter in parameters if id(parameter) not in weights]
        with self._rounded(model):  # a checkpoint runs parts of the network again
            found = modes.gradients(loss, [*self.leaves, *others])
        # The mean of all ranks, so that all take the same step of log s.
        found = ranks.gradients(found, 1 / ranks.count())
        descent = self._descent(self.flat.gathered(found[: len(weights)]))
        slopes = [*self.flat.views(descent), *found[len(weights) :]]
        by_id = dict(zip([*weights, *map(id, others)], slopes, strict=True))
        return [by_id[id(parameter)] for parameter in parameters]

    def _corrected(self, total: torch.Tensor, decay: float) -> torch.Tensor:
        """An exponential mean from its sum, which started at 0 (as in Adam)."""
        return total / (1 - decay**self.steps_done)

    def _limited(self, slopes: torch.Tensor) -> torch.Tensor:
        """∂L/∂x, each at most LIMIT times its layer's largest magnitude, a mean over the steps so
        far. Below a batch norm, a filter that has lost all its codes has a slope some 300 times
        (1/√ε) that of the others, at which a training at a low rate would diverge.

        The mean magnitude would be no measure: where most units are off, most slopes are zero, a
        limit of ten means cuts the others, so the next mean is lower; the layer starves.
        """
        limit = LIMIT * self._corrected(self.largest, LARGEST_DECAY)
        limit = self.flat.spread(limit.masked_fill(self.steps_done == 0, math.inf))
        slopes = slopes.clamp(-limit, limit)
        self.largest.lerp_(self.flat.largest(slopes.abs()), 1 - LARGEST_DECAY)
        return slopes

    @torch.no_grad()
    def _descent(self, loss_w: torch.Tensor) -> torch.Tensor:
        """∂(L + λR)/∂W, from ∂L/∂(s · q). Takes a step of λ and of log s too."""
        x, flat = self.x, self.flat
        s = flat.spread(self.log_steps.exp())
        inside = (x.abs() <= rate.LARGEST).to(x.dtype)
        rounded_x = self._limited(loss_w * s)
        self.steps_done += 1
        magnitude = (flat.sums(x.abs()) / flat.lengths).clamp_min(LEAST)
        self.scale.lerp_(magnitude, 1 - SCALE_DECAY)
        scale = self._corrected(self.scale, SCALE_DECAY)

        loss_x = rounded_x * inside
        rate_x = rate.slope(x, flat.spread(scale)) * inside / flat.count
        loss_s = flat.sums(rounded_x * self.codes(x) - loss_x * x)
        rate_s = -flat.sums(rate_x * x)
        self.slopes.lerp_(torch.stack([loss_s.sum(), rate_s.sum()]), 1 - PRICE_DECAY)
        price = self.price

        slope = loss_s + price * rate_s
        self.mean.lerp_(slope, 1 - MEAN_DECAY)
        self.square.lerp_(slope**2, 1 - SQUARE_DECAY)
        spread = self._corrected(self.square, SQUARE_DECAY).sqrt() + 1e-8
        change = self.step_rate * self._corrected(self.mean, MEAN_DECAY) / spread
        # A common change is for `hold`.
        self.log_steps -= change - change.mean()
        return (loss_x + price * rate_x) / s

    @torch.no_grad()
    def quantized(self, model: nn.Module) -> dict[str, Quantized]:
        """Q, S and Z = 0 of every weight, on the CPU."""
        codes = self.flat.views(self.codes(self._x(model)).to(torch.int8).cpu())
        steps, zero = self.log_steps.exp().cpu(), torch.zeros((), dtype=torch.int32)
        return {
            name: Quantized(part.contiguous(), step, zero)
            for name, part, step in zip(self.flat.names, codes, steps, strict=True)
        }

    def network(self, model: nn.Module) -> nn.Module:
        return linear.with_weights(model, self.quantized(model))

    def state(self) -> dict[str, Any]:
        # What the network computed with last is of no use in the next step.
        kinds = torch.Tensor | float | int
        return {
            name: value
            for name, value in vars(self).items()
            if name != "x" and isinstance(value, kinds)
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                getattr(self, name).copy_(value)
            else:
                setattr(self, name, value)
