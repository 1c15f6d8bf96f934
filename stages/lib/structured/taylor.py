"""How much the loss changes without a unit, by first-order Taylor expansion (Molchanov et al.,
Importance Estimation for Neural Network Pruning, CVPR 2019).
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stages.lib.evaluation.samples import Samples
from stages.lib.models.modes import input_like
from stages.lib.models.origins import copied
from stages.lib.structured.coupling import OUT, Plan

IMAGES, BATCH = 500, 50


def losses(
    model: nn.Module, plan: Plan, samples: Samples, generator: torch.Generator
) -> np.ndarray:
    """The estimated change of the loss without each unit, float64 [units]: |Σ p · ∂L/∂p| over the
    parameters p that are zeros in its mask, with those of batch norms; the root mean square over
    batches of training images.

    samples: of which IMAGES are drawn by `generator`.
    """
    network = copied(model).eval().requires_grad_(True)
    sides = [member for member in plan.members if member.side == OUT]
    chosen = torch.randperm(len(samples.labels), generator=generator)[:IMAGES]
    device, total = input_like(network).device, np.zeros(len(plan.groups))
    batches = chosen.split(BATCH)
    for batch in batches:
        network.zero_grad(set_to_none=True)
        logits = network(samples.normalize(samples.images[batch].to(device)))
        functional.cross_entropy(logits, samples.labels[batch].to(device)).backward()
        change = np.zeros(len(plan.groups))
        for member in sides:
            movable = member.units >= 0
            layer = network.get_submodule(member.layer)
            for name, parameter in layer.named_parameters(recurse=False):
                if parameter.grad is None:
                    continue
                product = (parameter * parameter.grad).detach()
                if isinstance(layer, nn.modules.conv._ConvTransposeNd) and name == "weight":
                    product = product.transpose(0, 1)
                each = product.flatten(1).sum(1) if product.dim() > 1 else product
                np.add.at(change, member.units[movable], each.double().cpu().numpy()[movable])
        total += change**2
    return np.sqrt(total / len(batches))
