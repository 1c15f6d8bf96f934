"""Knowledge distillation: a network learns from the probabilities of another network."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

from stages.lib.evaluation.context import Context
from stages.lib.models.origins import copied
from stages.lib.training.loop import CrossEntropy


class Distillation(CrossEntropy):
    """(1 − share) · cross-entropy + share · T² · KL(teacher ‖ student), both softened by the
    temperature T (Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015).

    teacher: sees the same augmented images, in evaluation mode; a copy of it is used. share: 0…1.
    """

    def __init__(self, teacher: nn.Module, share: float, temperature: float) -> None:
        self.teacher = copied(teacher).eval()
        self.share, self.temperature = share, temperature

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        with torch.no_grad():
            teacher_logits = self.teacher(inputs).float()
        distillation_loss = functional.kl_div(
            functional.log_softmax(logits / self.temperature, 1),
            functional.log_softmax(teacher_logits / self.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        label_loss = super().__call__(logits, labels, inputs)
        return (1 - self.share) * label_loss + self.share * self.temperature**2 * distillation_loss


def asked(context: Context, options: SimpleNamespace) -> CrossEntropy:
    """The loss that a section of params asks for, with its `distillation` and `temperature`."""
    if options.distillation == 0:
        return CrossEntropy()
    return Distillation(context.teacher, options.distillation, options.temperature)
