"""Training after pruning: one call for every method, so that they differ in nothing else."""

from collections.abc import Mapping

import torch
from torch import nn

from stages.lib import device, training
from stages.lib.params import Training
from stages.lib.setting import Setting


def recover(
    at: Setting,
    model: nn.Module,
    recipe: Training,
    seed: int,
    stage: str,
    arm: str,
    *,
    epochs: int,
    learning_rate: float,
    held: Mapping[str, torch.Tensor] | None = None,
    criterion: training.Labels | None = None,
) -> nn.Module:
    """A trained copy of the network.

    `stage` and `arm` name the random stream of batches and augmentation; learning_rate: the peak;
    held: masks by parameter name, for weights that must stay zero; criterion: the loss, that of
    the labels unless given.
    """
    trained, _ = training.fit(
        model,
        at.data,
        recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        precision=at.precision,
        generator=device.generator(seed, f"{stage} {arm}"),
        held=held,
        criterion=criterion,
        label=stage,
    )
    return trained
