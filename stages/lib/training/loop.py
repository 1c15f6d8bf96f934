"""The training loop, for the baseline and for all training after pruning."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.lib.core.errors import UserError
from stages.lib.core.params import Training
from stages.lib.core.progress import shown
from stages.lib.core.records import Epoch
from stages.lib.evaluation import images, ranks
from stages.lib.evaluation.samples import Data
from stages.lib.evaluation.states import States
from stages.lib.models import modes, workarounds
from stages.lib.models.origins import copied
from stages.lib.pruning.masks import apply_ as apply_masks
from stages.lib.training import graphs
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
        torch.manual_seed(generator.initial_seed() + ranks.number())
        yield


class TrainingScheme:
    """How a network is used while it trains; this one uses it as it is. Other schemes, such as
    quantization-aware training, have the same methods. Where steps are replayed, `logits` and
    `gradients` must work as `graphs.Replayed` asks; `before_step` may read tensors and write to
    them, but must not replace them.
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
        return modes.gradients(loss, parameters)

    def network(self, model: nn.Module) -> nn.Module:
        """The network whose accuracy is measured, made from the one in training."""
        return model

    def state(self) -> Any:
        """What the scheme has found out while training, as `states.Snapshot` takes it."""
        return None

    def restore(self, state: Any) -> None:
        """Goes on from what `state` returned; its tensors are on the CPU."""


class CrossEntropy:
    """The loss of a batch: cross-entropy with its labels, in nats."""

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        """logits: float32 [n, classes]; labels: int64 [n]; inputs: the normalized images."""
        return functional.cross_entropy(logits, labels)


class _Step:
    """A training step: from drawn images to changed weights.

    loss_sum, correct: over the images of the epoch so far; read once per epoch, because reading
        makes a GPU and its host wait for each other.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        options: Training,
        precision: torch.dtype,
        masks: Mapping[str, torch.Tensor],
        scheme: TrainingScheme,
        loss: CrossEntropy,
    ) -> None:
        self.model, self.train, self.masks = model, data.train, masks
        self.precision, self.scheme, self.loss = precision, scheme, loss
        self.optimizer = SGD(model, options)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def device(self) -> torch.device:
        """That of the weights."""
        return self.optimizer.parameters[0].device

    def __call__(self, drawn: torch.Tensor, rate: torch.Tensor) -> None:
        """drawn: a part of `_drawn`. rate: the learning rate."""
        model, train = self.model, self.train
        count = drawn.shape[1]
        share = ranks.share(count)
        drawn = drawn[:, share.part]
        inputs = train.normalize(images.moved(train.images[drawn[0]], drawn[1:]))
        labels = train.labels[drawn[0]].to(self.device)
        enabled = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=enabled):
            with workarounds.strided_convolutions(model):
                # A copy, because a network may write into its input, which a teacher reads too.
                logits = self.scheme.logits(model, inputs.clone())
            loss = self.loss(logits.float(), labels, inputs)
        gradients = self.scheme.gradients(model, loss, self.optimizer.parameters)
        self.optimizer.step(ranks.gradients(gradients, share.weight), rate)
        apply_masks(model, self.masks)
        self.loss_sum += loss.detach() * (share.weight * count)
        self.correct += (logits.argmax(1) == labels)[share.counted].sum()

    def epoch(self) -> tuple[float, int]:
        """Loss sum and correct images since the last call, of all ranks."""
        loss_sum, correct = ranks.totals(self.loss_sum, self.correct)
        sums = float(loss_sum), int(correct)
        self.loss_sum.zero_()
        self.correct.zero_()
        return sums

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that changes from step to step, by name."""
        named = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        momenta = {f"momentum {index}": one for index, one in enumerate(self.optimizer.momenta)}
        return {**named, **momenta, "loss sum": self.loss_sum, "correct": self.correct}

    def state(self) -> dict[str, Any]:
        """What the steps so far have changed, for `restore`."""
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {"tensors": self.tensors(), "scheme": self.scheme.state(), "random": random}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        for name, tensor in self.tensors().items():
            tensor.copy_(state["tensors"][name])
        self.scheme.restore(state["scheme"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)


def _drawn(
    count: int, options: Training, generator: torch.Generator, device: torch.device
) -> Sequence[torch.Tensor]:
    """The batches of an epoch, drawn in order: int64 [4, n] each, on the device. The rows are the
    indices of the images and their moves (`images.moves`).
    """
    parts = batches(count, options.batch_size, generator)
    augmentation = {"shift": options.shift, "mirror": options.mirror, "generator": generator}
    moves = [images.moves(len(index), **augmentation) for index in parts]
    drawn = torch.cat([torch.cat(parts)[None], torch.cat(moves, dim=1)])
    return drawn.to(device).split([len(index) for index in parts], dim=1)


def _state(
    step: _Step, epoch: int, epochs: int, steps: int, curve: list[Epoch], generator: torch.Tensor
) -> dict[str, Any]:
    """A training's state. epoch: the one at work, of `epochs`. steps: that it has taken. generator:
    the stream's state when it began.
    """
    done = {"epoch": epoch, "epochs": epochs, "steps": steps, "curve": curve}
    return done | {"generator": generator} | step.state()


def fit(
    model: nn.Module,
    data: Data,
    options: Training,
    *,
    epochs: int,
    learning_rate: float,
    generator: torch.Generator,
    precision: torch.dtype = torch.float32,
    replayed: bool = False,
    masks: Mapping[str, torch.Tensor] | None = None,
    scheme: TrainingScheme | None = None,
    loss: CrossEntropy | None = None,
    label: str = "training",
    states: States | None = None,
    validated: bool = True,
) -> tuple[nn.Module, list[Epoch]]:
    """A trained copy of `model`, in evaluation mode, and its learning curve.

    options: batch size, augmentation, momentum and weight decay.
    learning_rate: the peak of `one_cycle`.
    generator: a CPU stream, of batches, augmentation and dropout.
    precision: bfloat16 for autocast; weights and their updates are float32 either way.
    replayed: whether steps are replayed from a CUDA graph, if the images are on a GPU. The network
        must then do the same in every call.
    masks: by parameter name, True where a weight stays; the rest is zero after every step.
    scheme, loss: how the network is used, and its loss; by default TrainingScheme and
        CrossEntropy.
    label: names the training in the progress bar and in errors.
    states: where the training saves its state, and goes on from the one it finds there.
    validated: whether the curve holds validation accuracies; they take a twelfth of the time.

    Raises UserError if the loss stops being finite.
    """
    scheme, loss, masks = scheme or TrainingScheme(), loss or CrossEntropy(), masks or {}
    model = copied(model).train()
    apply_masks(model, masks)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"{label}: the network has no parameter that requires a gradient")
    step = _Step(model, data, options, precision, masks, scheme, loss)
    place, count, curve = data.train.images.device, len(data.train.labels), []
    take = step
    # Several ranks train large networks, whose steps a graph would not make faster.
    if replayed and place.type == "cuda" and ranks.count() == 1:
        take = graphs.Replayed(step)
    # A scheme that does not tell its state cannot go on from one.
    told = type(scheme) is TrainingScheme or type(scheme).state is not TrainingScheme.state
    saved = (states if states and told else States()).begin()
    with _seeded(generator, step.device):
        first, done = 1, 0
        if state := saved.load():
            first, done = state["epoch"], state["steps"]
            curve = [Epoch(*point) for point in state["curve"]]
            generator.set_state(state["generator"])
            step.restore(state)
        for epoch in shown(range(first, epochs + 1), label, "epoch"):
            before = generator.get_state()
            parts = _drawn(count, options, generator, place)
            shares = [(epoch - 1 + number / len(parts)) / epochs for number in range(len(parts))]
            rates = [one_cycle(progress, learning_rate) for progress in shares]
            steps = zip(parts, shares, torch.tensor(rates, device=step.device), strict=True)
            for number, (drawn, progress, rate) in enumerate(steps):
                if number < done:
                    continue
                if saved.due():
                    saved.save(_state(step, epoch, epochs, number, curve, before))
                scheme.before_step(model, progress)
                take(drawn, rate)
            done = 0
            loss_sum, correct = step.epoch()
            ranks.average_statistics(model)
            if not math.isfinite(loss_sum):
                raise UserError(
                    f"{label}: the loss is no longer a number after epoch {epoch};"
                    f" lower its learning_rate ({learning_rate})"
                )
            accuracy = None
            if validated:
                accuracy = ranks.accuracy(scheme.network(model), data.validation)
            curve.append(Epoch(epoch, rates[-1], loss_sum / count, correct / count, accuracy))
        saved.end(_state(step, epochs + 1, epochs, 0, curve, generator.get_state()))
    return model.eval(), curve
