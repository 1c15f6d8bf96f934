"""Random: the control that every other criterion must beat (Blalock et al., What is the State of
Neural Network Pruning?, 2020).
"""

import torch
from torch import nn

from stages.lib.evaluation.samples import Samples
from stages.lib.models import prunable


def scores(
    model: nn.Module, samples: Samples, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Uniform random numbers from `generator`, a CPU stream, by parameter name."""
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in prunable.weights(model).items()
    }
