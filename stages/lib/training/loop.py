"""The training loop: one for the baseline and for every recovery after pruning."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.optim.sgd import sgd
from tqdm import tqdm

from stages.lib.core.errors import UserError
from stages.lib.core.params import Training
from stages.lib.evaluation import images, inference
from stages.lib.evaluation.inference import Data
from stages.lib.pruning.masks import apply_ as apply_masks

WARM_UP = 0.2


@dataclass(frozen=True)
class Epoch:
    """One row of a learning curve; losses are mean cross-entropies in nats (None where nothing was
    trained), accuracies 0…1.
    """

    epoch: int
    learning_rate: float
    train_loss: float | None
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


@contextmanager
def _seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """torch's global random stream, which dropout and its like draw from, seeded from `generator`
    and put back afterwards.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield


def _strided_points(model: nn.Module) -> list[nn.Conv2d]:
    """The 1×1 convolutions that skip pixels, such as a ResNet's shortcuts."""
    return [
        one
        for one in model.modules()
        if type(one) is nn.Conv2d
        and one.kernel_size == (1, 1)
        and one.stride != (1, 1)
        and one.padding == (0, 0)
    ]


@contextmanager
def _skipping_first(model: nn.Module) -> Iterator[None]:
    """Has those convolutions drop the pixels that they skip and go on without a stride.

    On a CPU torch 2.15 writes past the end of their weight's gradient, channels-last, where 2 to 15
    channels come in and the batch does not divide by the threads. The results are the same.
    """
    found = _strided_points(model)
    before = [one.stride for one in found]
    hooks = [
        one.register_forward_pre_hook(
            lambda _, given, rows=one.stride[0], columns=one.stride[1]: given[0][
                ..., ::rows, ::columns
            ]
        )
        for one in found
    ]
    for one in found:
        one.stride = (1, 1)
    try:
        yield
    finally:
        for one, hook, stride in zip(found, hooks, before, strict=True):
            hook.remove()
            one.stride = stride


class TrainingScheme:
    """How a network is used while it trains: as it is. Another scheme, such as training for
    quantized weights, has the same three methods.
    """

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Called before every step, with the share of the steps that are done (0 ≤ progress <
        1).
        """

    def logits(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """What the network puts out for a batch of normalised images."""
        return model(inputs)

    def network(self, model: nn.Module) -> nn.Module:
        """The network that the trained one stands for, whose accuracy counts."""
        return model


class CrossEntropy:
    """The loss of a batch: cross-entropy with its labels, in nats."""

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        """logits: float32 [n, classes]; labels: int64 [n]; inputs: the normalised images."""
        return functional.cross_entropy(logits, labels)


class _Descent:
    """Stochastic gradient descent with Nesterov momentum and weight decay, in place.

    On torch's functional form: the Optimizer class imports torch's compiler, two seconds a stage.
    """

    def __init__(self, model: nn.Module, options: Training) -> None:
        self.parameters = [one for one in model.parameters() if one.requires_grad]
        self.momenta: list[torch.Tensor | None] = [None] * len(self.parameters)
        self.options = options

    @torch.no_grad()
    def step(self, loss: torch.Tensor, rate: float) -> None:
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        used = [index for index, gradient in enumerate(found) if gradient is not None]
        momenta = [self.momenta[index] for index in used]
        sgd(
            [self.parameters[index] for index in used],
            [found[index] for index in used],
            momenta,
            lr=rate,
            momentum=self.options.momentum,
            weight_decay=self.options.weight_decay,
            dampening=0,
            nesterov=self.options.momentum > 0,
            maximize=False,
            # The fused form goes wrong where a gradient and its weight differ in layout.
            fused=False,
            foreach=False,
        )
        for index, momentum in zip(used, momenta, strict=True):
            self.momenta[index] = momentum


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

    `learning_rate` is the peak of `one_cycle`. precision: bfloat16 for autocast; weights and their
    updates are float32 either way. masks: masks by parameter name, True where a weight stays; the
    rest is zero after every step. scheme, loss: how the network is used, and its loss;
    `TrainingScheme` and `CrossEntropy` unless given. Raises UserError where the loss stops being
    finite.
    """
    scheme, loss = scheme or TrainingScheme(), loss or CrossEntropy()
    model = copy.deepcopy(model).train()
    masks = masks or {}
    apply_masks(model, masks)
    descent = _Descent(model, options)
    if not descent.parameters:
        raise UserError(f"{label}: the network has no parameter that requires a gradient")
    device = descent.parameters[0].device
    train = data.train
    count = len(train.labels)
    curve = []
    with _seeded(generator, device), _skipping_first(model):
        for epoch in tqdm(range(1, epochs + 1), label, unit="epoch", leave=False, disable=None):
            loss_sum, correct = torch.zeros((), dtype=torch.float64, device=device), 0
            order = batches(count, options.batch_size, generator)
            for step, index in enumerate(order):
                batch = images.augment(
                    train.images[index],
                    shift=options.shift,
                    mirror=options.mirror,
                    generator=generator,
                )
                labels = train.labels[index].to(device)
                inputs = train.normalize(batch)
                progress = (epoch - 1 + step / len(order)) / epochs
                scheme.before_step(model, progress)
                with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                    logits = scheme.logits(model, inputs)
                    value = loss(logits.float(), labels, inputs)
                rate = one_cycle(progress, learning_rate)
                descent.step(value, rate)
                apply_masks(model, masks)
                # Read once an epoch: reading makes a GPU and its host wait for each other.
                loss_sum += value.detach() * len(index)
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
