"""Estimates the statistics of batch norms again, or folds them into weight and bias."""

from collections.abc import Iterable

import torch
from torch import nn

from stages.lib.models.origins import copied

NORM = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def recalibrated(model: nn.Module, batches: Iterable[torch.Tensor]) -> nn.Module:
    """A copy, in evaluation mode, whose batch norms have the mean and variance of `batches`, all
    with equal weight. Those of training belong to weights that have changed since. The copy is not
    for further training: its norms would go on with that mean.

    batches: normalized images.
    """
    model = copied(model).eval()
    for norm in model.modules():
        if isinstance(norm, NORM):
            norm.reset_running_stats()
            norm.momentum = None  # a mean over all batches
            # Only the norms are in training mode: dropout must stay off.
            norm.train()
    for batch in batches:
        model(batch)
    return model.eval()


@torch.no_grad()
def affine(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that computes the same except for rounding. The mean and variance
    of each batch norm are folded into its weight and bias: a · x + b with a = γ / √(σ² + ε) and
    b = β − a · μ.
    """
    model = copied(model).eval()
    for norm in model.modules():
        if not isinstance(norm, NORM) or norm.running_mean is None or norm.weight is None:
            continue
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.sub_(slope * norm.running_mean)
        norm.weight.copy_(slope)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.zero_()
    return model
