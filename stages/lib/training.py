"""The training loop: one for the baseline and for every recovery after pruning."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.optim.sgd import sgd
from tqdm import tqdm

from stages.lib import evaluation, images, masks
from stages.lib.errors import UserError
from stages.lib.evaluation import Data
from stages.lib.params import Training

WARM_UP = 0.2


@dataclass(frozen=True)
class Epoch:
    """One row of a learning curve; losses are mean cross-entropies in nats, accuracies 0…1."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_accuracy: float


def batches(count: int, size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """A random order of `count` indices in batches of `size`.

    A last batch of one image joins the batch before it: batch norm cannot train on one.
    """
    parts = list(torch.randperm(count, generator=generator).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def one_cycle(progress: float, peak: float) -> float:
    """Learning rate after a share `progress` (0…1) of the steps (Smith and Topin, 2018): from a
    tenth of `peak` up to it over the first fifth, then down to zero, both along half a cosine.
    """
    if progress < WARM_UP:
        start, end, along = peak / 10, peak, progress / WARM_UP
    else:
        start, end, along = peak, 0.0, (progress - WARM_UP) / (1 - WARM_UP)
    return end + (start - end) * (1 + math.cos(math.pi * along)) / 2


def fit(
    model: nn.Module,
    data: Data,
    recipe: Training,
    *,
    epochs: int,
    learning_rate: float,
    generator: torch.Generator,
    held: Mapping[str, torch.Tensor] | None = None,
    label: str = "training",
) -> tuple[nn.Module, list[Epoch]]:
    """A trained copy of `model`, in evaluation mode, and its learning curve.

    SGD with Nesterov momentum and weight decay; `learning_rate` is the peak of `one_cycle`. `held`:
    masks by parameter name, True where a weight stays; the rest is zero after every step.
    Raises UserError where the loss stops being finite.
    """
    model = copy.deepcopy(model).train()
    held = held or {}
    masks.apply_(model, held)
    parameters = list(model.parameters())
    momenta: list[torch.Tensor | None] = [None] * len(parameters)
    train = data.train
    count = len(train.labels)
    curve = []
    for epoch in tqdm(range(1, epochs + 1), label, unit="epoch", leave=False, disable=None):
        loss_sum, correct = 0.0, 0
        order = batches(count, recipe.batch_size, generator)
        for step, index in enumerate(order):
            batch = images.augment(
                train.images[index], shift=recipe.shift, mirror=recipe.mirror, generator=generator
            )
            labels = train.labels[index]
            logits = model(train.normalize(batch))
            loss = functional.cross_entropy(logits, labels)
            rate = one_cycle((epoch - 1 + step / len(order)) / epochs, learning_rate)
            # The functional form: the Optimizer class imports torch's compiler, two seconds a
            # stage.
            with torch.no_grad():
                sgd(
                    parameters,
                    list(torch.autograd.grad(loss, parameters)),
                    momenta,
                    lr=rate,
                    momentum=recipe.momentum,
                    weight_decay=recipe.weight_decay,
                    dampening=0,
                    nesterov=recipe.momentum > 0,
                    maximize=False,
                    # The fused form goes wrong where a gradient and its weight differ in layout.
                    fused=False,
                    foreach=False,
                )
            masks.apply_(model, held)
            loss_sum += loss.item() * len(index)
            correct += int((logits.argmax(1) == labels).sum())
        if not math.isfinite(loss_sum):
            raise UserError(
                f"{label}: the loss is no longer a number after epoch {epoch};"
                f" lower its learning_rate ({learning_rate})"
            )
        curve.append(
            Epoch(
                epoch=epoch,
                learning_rate=rate,
                train_loss=loss_sum / count,
                train_accuracy=correct / count,
                validation_accuracy=evaluation.accuracy(model, data.validation),
            )
        )
    return model.eval(), curve
