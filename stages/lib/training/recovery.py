"""Training after pruning: one function for all methods, so that they differ in nothing else."""

from collections.abc import Mapping

import torch
from torch import nn

from stages.lib.evaluation.context import Context
from stages.lib.training import loop


def recover(
    context: Context,
    model: nn.Module,
    arm: str,
    *,
    epochs: int,
    learning_rate: float,
    masks: Mapping[str, torch.Tensor] | None = None,
    scheme: loop.TrainingScheme | None = None,
    loss: loop.CrossEntropy | None = None,
) -> nn.Module:
    """A trained copy of the network.

    context: of the stage, with params `training`.
    arm: names the random stream of batches and augmentation within this stage and seed.
    learning_rate: the peak of the one-cycle schedule.
    masks: by parameter name; a weight stays zero where its mask is False.
    scheme, loss: as in `loop.fit`.
    """
    trained, _ = loop.fit(
        model,
        context.data,
        context.params.training,
        epochs=epochs,
        learning_rate=learning_rate,
        precision=context.precision,
        replayed=context.replayed,
        generator=context.generator(arm),
        masks=masks,
        scheme=scheme,
        loss=loss,
        label=context.name,
        states=context.states,
        validated=False,
    )
    return trained
