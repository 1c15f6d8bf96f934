"""The training loop, for the baseline and for all training after pruning."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from stages.lib.core.errors import UserError
from stages.lib.core.params import Training
from stages.lib.core.records import Epoch
from stages.lib.evaluation import images, inference
from stages.lib.evaluation.samples import Data
from stages.lib.models import workarounds
from stages.lib.pruning.masks import apply_ as apply_masks
from stages.lib.training.optimizer import SGD

WARM_UP = 0.2


def batches(count: int, size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """`count` indices in random order, in batches of `size`.

    A last batch of one image joins the batch before it, because batch norm cannot train on one
    image.
    """
    parts = list(torch.randperm(count, generator=generator).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def one_cycle(progress: float, peak: float) -> float:
    """The learning rate after a share `progress` (0…1) of the steps (Smith and Topin, 2018). It
    rises from a tenth of `peak` to `peak` over the first fifth, then falls to zero, both along half
    a cosine.
    """
    if progress < WARM_UP:
        start, end, along = peak / 10, peak, progress / WARM_UP
    else:
        start, end, along = peak, 0.0, (progress - WARM_UP) / (1 - WARM_UP)
    return end + (start - end) * (1 + math.cos(math.pi * along)) / 2


@contextmanager
def _seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seeds torch's global random stream, which dropout uses, from `generator`. Afterwards the
    stream is as it was before.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield


class TrainingScheme:
    """How a network is used while it trains; this one uses it as it is. Other schemes, such as
    quantization-aware training, have the same four methods.
    """

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Called before every step. progress: the share of steps done, 0 ≤ progress < 1."""

    def logits(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """The network's logits for a batch of normalized images."""
        return model(inputs)

    def gradients(
        self, model: nn.Module, loss: torch.Tensor, parameters: Sequence[nn.Parameter]
    ) -> Sequence[torch.Tensor | None]:
        """What the parameters descend: the gradients of the loss, None where it does not depend on
        a parameter.
        """
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    def network(self, model: nn.Module) -> nn.Module:
        """The network whose accuracy is measured, made from the one in training."""
        return model


class CrossEntropy:
    """The loss of a batch: cross-entropy with its labels, in nats."""

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        """logits: float32 [n, classes]; labels: int64 [n]; inputs: the normalized images."""
        return functional.cross_entropy(logits, labels)


def fit(
    model: nn.Module,
    data: Data,
    options: Training,
    *,
    epochs: int,
    learning_rate: float,
    generator: torch.Generator,
    precision: torch.dtype = torch.float32,
    masks: Mapping[str, torch.Tensor] | None = None,
    scheme: TrainingScheme | None = None,
    loss: CrossEntropy | None = None,
    label: str = "training",
) -> tuple[nn.Module, list[Epoch]]:
    """A trained copy of `model`, in evaluation mode, and its learning curve.

    options: batch size, augmentation, momentum and weight decay.
    learning_rate: the peak of `one_cycle`.
    generator: a CPU stream, of batches, augmentation and dropout.
    precision: bfloat16 for autocast; weights and their updates are float32 either way.
    masks: by parameter name, True where a weight stays; the rest is zero after every step.
    scheme, loss: how the network is used, and its loss; by default TrainingScheme and
        CrossEntropy.
    label: names the training in the progress bar and in errors.

    Raises UserError if the loss stops being finite.
    """
    scheme, loss, masks = scheme or TrainingScheme(), loss or CrossEntropy(), masks or {}
    model = copy.deepcopy(model).train()
    apply_masks(model, masks)
    optimizer = SGD(model, options)
    if not optimizer.parameters:
        raise UserError(f"{label}: the network has no parameter that requires a gradient")
    device = optimizer.parameters[0].device
    train = data.train
    count = len(train.labels)
    curve = []
    with _seeded(generator, device):
        for epoch in tqdm(range(1, epochs + 1), label, unit="epoch", leave=False, disable=None):
            loss_sum, correct = torch.zeros((), dtype=torch.float64, device=device), 0
            order = batches(count, options.batch_size, generator)
            for step, index in enumerate(order):
                progress = (epoch - 1 + step / len(order)) / epochs
                batch = images.augment(
                    train.images[index],
                    shift=options.shift,
                    mirror=options.mirror,
                    generator=generator,
                )
                inputs, labels = train.normalize(batch), train.labels[index].to(device)
                scheme.before_step(model, progress)
                with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                    with workarounds.strided_convolutions(model):
                        # A copy, because a network may write into its input, which a teacher reads
                        # too.
                        logits = scheme.logits(model, inputs.clone())
                    batch_loss = loss(logits.float(), labels, inputs)
                rate = one_cycle(progress, learning_rate)
                gradients = scheme.gradients(model, batch_loss, optimizer.parameters)
                optimizer.step(gradients, rate)
                apply_masks(model, masks)
                # Read once per epoch, because reading makes a GPU and its host wait for each other.
                loss_sum += batch_loss.detach() * len(index)
                correct += (logits.argmax(1) == labels).sum()
            if not math.isfinite(loss_sum):
                raise UserError(
                    f"{label}: the loss is no longer a number after epoch {epoch};"
                    f" lower its learning_rate ({learning_rate})"
                )
            curve.append(
                Epoch(
                    epoch=epoch,
                    learning_rate=rate,
                    train_loss=float(loss_sum) / count,
                    train_accuracy=int(correct) / count,
                    validation_accuracy=inference.accuracy(scheme.network(model), data.validation),
                )
            )
    return model.eval(), curve
