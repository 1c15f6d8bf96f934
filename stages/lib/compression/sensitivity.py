"""How sensitive the network's output is to each weight."""

import torch
from torch import nn

from stages.lib.evaluation.samples import Samples
from stages.lib.models import prunable, workarounds
from stages.lib.models.modes import evaluating

BATCH = 10


def of_logits(
    model: nn.Module, samples: Samples, count: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The sensitivity G of every prunable weight, float32, by name: Σ G · (change of the weight)²
    estimates the squared change of the logits, summed over classes, for an average image.

    G is the diagonal of the Gauss-Newton matrix of the logits, estimated by gradients of sums of
    logits with random signs (Hutchinson). Unlike the Fisher information of the predictions, it does
    not vanish for images that the network is sure of, such as training images.

    count: the number of images drawn from `samples`, or all if there are fewer.
    generator: a CPU stream.
    """
    weights = list(prunable.weights(model))
    parameters = [model.get_parameter(name) for name in weights]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    order = torch.randperm(len(samples.labels), generator=generator)[:count]
    for index in order.split(BATCH):
        with evaluating(model), workarounds.strided_convolutions(model):
            logits = model(samples.normalize(samples.images[index])).float()
        signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits) * 2 - 1
        gradients = torch.autograd.grad((logits * signs).sum(), parameters, allow_unused=True)
        for squares, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                squares += gradient**2
    return {name: squares / len(order) for name, squares in zip(weights, total, strict=True)}
