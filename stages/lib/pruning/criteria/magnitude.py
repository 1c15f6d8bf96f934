"""Magnitude: small weights matter least (Han et al., Learning both Weights and Connections,
2015).
"""

import torch
from torch import nn

from stages.lib.evaluation.samples import Samples
from stages.lib.models import prunable


def scores(
    model: nn.Module, samples: Samples | None = None, generator: torch.Generator | None = None
) -> dict[str, torch.Tensor]:
    """The absolute value of each prunable weight, by parameter name. The images are not used."""
    return {name: weight.abs() for name, weight in prunable.weights(model).items()}
