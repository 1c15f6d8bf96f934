"""Stochastic gradient descent with Nesterov momentum and weight decay."""

from collections.abc import Sequence

import torch
from torch import nn

from stages.lib.core.params import Training


class SGD:
    """Takes the steps of torch.optim.SGD, in place, with a learning rate that is a tensor, so that
    a CUDA graph can replay them. Importing torch's class takes two seconds, because it imports
    torch's compiler.

    parameters: those that require a gradient.
    options: momentum and weight decay.
    """

    def __init__(self, model: nn.Module, options: Training) -> None:
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self.momenta = [torch.zeros_like(weight) for weight in self.parameters]
        self.options = options

    @torch.no_grad()
    def step(self, gradients: Sequence[torch.Tensor | None], learning_rate: torch.Tensor) -> None:
        """Takes one step. Parameters without a gradient stay as they are.

        learning_rate: of no dimension, on the device of the parameters.
        """
        used = [
            (weight, gradient, momentum)
            for weight, gradient, momentum in zip(
                self.parameters, gradients, self.momenta, strict=True
            )
            if gradient is not None
        ]
        weights, slopes, momenta = map(list, zip(*used, strict=True))
        decayed = torch._foreach_add(slopes, weights, alpha=self.options.weight_decay)
        torch._foreach_mul_(momenta, self.options.momentum)
        torch._foreach_add_(momenta, decayed)
        torch._foreach_add_(decayed, momenta, alpha=self.options.momentum)
        torch._foreach_mul_(decayed, -learning_rate)
        torch._foreach_add_(weights, decayed)
