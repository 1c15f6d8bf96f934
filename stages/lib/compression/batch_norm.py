"""Batch norms of a network that is trained no further: their statistics estimated anew, or made
part of weight and bias.
"""

import copy
from collections.abc import Iterable

import torch
from torch import nn

NORM = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def recalibrated(model: nn.Module, batches: Iterable[torch.Tensor]) -> nn.Module:
    """A copy whose batch norms hold the mean and variance of `batches` (normalized images) as the
    network sees them now, each batch alike: those gathered in training are of weights that have
    changed since. In evaluation mode.
    """
    model = copy.deepcopy(model).eval()
    norms = [module for module in model.modules() if isinstance(module, NORM)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        # Only the norms: dropout must not be at work.
        norm.train()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


@torch.no_grad()
def affine(model: nn.Module) -> nn.Module:
    """A copy that computes the same but for rounding, in evaluation mode: each batch norm's mean
    and variance go into its weight and bias (a · x + b with a = γ / √(σ² + ε), b = β − a · μ).
    """
    model = copy.deepcopy(model).eval()
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
