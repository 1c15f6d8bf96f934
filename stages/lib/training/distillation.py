"""Knowledge distillation: a network learns from another one's probabilities."""

import torch
from torch import nn
from torch.nn import functional

from stages.lib.training.loop import CrossEntropy


class Distillation(CrossEntropy):
    """Part of the loss comes from a teacher that sees the same augmented images (Hinton, Vinyals
    and Dean, Distilling the Knowledge in a Neural Network, 2015).

    (1 − share) · cross-entropy + share · T² · KL(teacher ‖ student), both softened by the
    temperature T. teacher: on the images' device; it stays in evaluation mode and is not trained.
    """

    def __init__(self, teacher: nn.Module, share: float, temperature: float) -> None:
        self.teacher = teacher.eval()
        self.share, self.temperature = share, temperature

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        with torch.no_grad():
            taught = self.teacher(inputs).float() / self.temperature
        divergence = functional.kl_div(
            functional.log_softmax(logits / self.temperature, 1),
            functional.log_softmax(taught, 1),
            reduction="batchmean",
            log_target=True,
        )
        own = super().__call__(logits, labels, inputs)
        return (1 - self.share) * own + self.share * self.temperature**2 * divergence
