"""Stochastic gradient descent with Nesterov momentum and weight decay."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.sgd import sgd

from stages.lib.core.params import Training


class SGD:
    """Takes the steps of torch.optim.SGD, in place, by its functional form. Importing the class
    takes two seconds, because it imports torch's compiler.

    parameters: those that require a gradient.
    options: momentum and weight decay.
    """

    def __init__(self, model: nn.Module, options: Training) -> None:
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self.momenta: list[torch.Tensor | None] = [None] * len(self.parameters)
        self.options = options

    @torch.no_grad()
    def step(self, gradients: Sequence[torch.Tensor | None], learning_rate: float) -> None:
        """Takes one step. Parameters without a gradient stay as they are."""
        used = [index for index, gradient in enumerate(gradients) if gradient is not None]
        momenta = [self.momenta[index] for index in used]
        sgd(
            [self.parameters[index] for index in used],
            [gradients[index] for index in used],
            momenta,
            lr=learning_rate,
            momentum=self.options.momentum,
            weight_decay=self.options.weight_decay,
            dampening=0,
            nesterov=self.options.momentum > 0,
            maximize=False,
            # The fused form is wrong if a gradient and its weight differ in layout.
            fused=False,
            foreach=False,
        )
        for index, momentum in zip(used, momenta, strict=True):
            self.momenta[index] = momentum
