"""Deep Compression's recipe on the networks of this repository's run, at the sizes of `compress`.

    python -m tests.benchmarks.deep_compression [SEED …]

Run it after `dvc repro` in the repository's folder. Pruning by one magnitude, 16 shared values per
layer by k-means, whose means are trained, and an entropy coder (Han, Mao and Dally, 2016). Epochs,
teacher, batch norms and the bytes beside the codes are those of `compress`, half of the epochs for
each part; each size starts from the one before.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from stages.lib.compression import batch_norm, entropy, size_targets
from stages.lib.compression.exact_rate import ExactRate
from stages.lib.core import params as parameters
from stages.lib.core import pipeline
from stages.lib.evaluation import inference
from stages.lib.evaluation.context import Context
from stages.lib.models import checkpoints, prunable
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.training import loop
from stages.lib.training.distillation import Distillation
from tests.benchmarks.common import parser

SHARED, ROUNDS = 16, 20
VALUE_BYTES = 2


def assigned(weight: torch.Tensor) -> torch.Tensor:
    """The group of each weight: 0 for zero, 1 to 15 by k-means from equal distances."""
    kept = weight[weight != 0]
    groups = torch.zeros(weight.shape, dtype=torch.int64)
    if not len(kept):
        return groups
    values = torch.linspace(float(kept.min()), float(kept.max()), SHARED - 1)
    for _ in range(ROUNDS):
        nearest = (kept[:, None] - values).abs().argmin(1)
        counts = torch.bincount(nearest, minlength=SHARED - 1)
        sums = torch.zeros(SHARED - 1).index_add_(0, nearest, kept)
        values = torch.where(counts > 0, sums / counts.clamp_min(1), values)
    groups[weight != 0] = 1 + (kept[:, None] - values).abs().argmin(1)
    return groups


def means(numbers: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The mean of each number's group; 0 in group 0."""
    flat, index = numbers.flatten(), groups.flatten()
    counts = torch.bincount(index, minlength=SHARED).clamp_min(1)
    sums = torch.zeros(SHARED).index_add_(0, index, flat)
    return (sums / counts * (torch.arange(SHARED) > 0))[index].view(numbers.shape)


class Shared(loop.TrainingScheme):
    """Weights of a group have one value, and descend the mean of their gradients."""

    def __init__(self, groups: Mapping[str, torch.Tensor]) -> None:
        self.groups = groups

    def gradients(
        self, model: nn.Module, loss: torch.Tensor, parameters: Sequence[nn.Parameter]
    ) -> Sequence[torch.Tensor | None]:
        groups = {id(model.get_parameter(name)): one for name, one in self.groups.items()}
        return [
            means(slope, groups[id(parameter)]) if id(parameter) in groups else slope
            for slope, parameter in zip(
                super().gradients(model, loss, parameters), parameters, strict=True
            )
        ]


def code_bytes(groups: Mapping[str, torch.Tensor]) -> float:
    """The entropy of all groups' numbers, and their values."""
    values = VALUE_BYTES * (SHARED - 1) * len(groups)
    return values + sum(entropy.bound_bits(one.numpy()) for one in groups.values()) / 8


def pruned_to(model: nn.Module, budget: float) -> masks.Masks:
    """Masks by one magnitude, after which groups take so many bytes."""
    scores, low, high = magnitude.scores(model), 0.0, 0.9999
    for _ in range(12):
        middle = (low + high) / 2
        kept = masks.global_(scores, middle)
        weights = prunable.weights(masks.masked(model, kept))
        groups = {name: assigned(weight) for name, weight in weights.items()}
        low, high = (middle, high) if code_bytes(groups) > budget else (low, middle)
    return masks.global_(scores, high)


def compressed(context: Context) -> None:
    """Prints size and accuracies for each size of `compress`."""
    options, model, train = context.params.compress, context.baseline, context.data.train
    dense = checkpoints.serialized_bytes(model)
    some = train.normalize(train.images[: size_targets.CHECK_IMAGES])
    beside = size_targets.least_bytes(ExactRate(model), model, some)

    def trained(network: nn.Module, epochs: int, part: str, **scheme) -> nn.Module:
        return loop.fit(
            network, context.data, context.params.training, epochs=epochs,
            learning_rate=options.learning_rate, generator=context.generator(part),
            precision=context.precision, label=part,
            loss=Distillation(context.teacher, options.distillation, options.temperature), **scheme,
        )[0]  # fmt: skip

    for factor in options.times_smaller:
        kept = pruned_to(model, dense / factor - beside)
        model = trained(model, (options.epochs + 1) // 2, f"pruned {factor}", masks=kept)
        groups = {name: assigned(weight) for name, weight in prunable.weights(model).items()}
        with torch.no_grad():
            for name, one in groups.items():
                model.get_parameter(name).copy_(means(model.get_parameter(name), one))
        epochs = max(1, options.epochs // 2)
        model = trained(model, epochs, f"shared {factor}", masks=kept, scheme=Shared(groups))
        chosen = size_targets.norm_batches(train, context.generator("norms"))
        fitted = batch_norm.recalibrated(
            model, (train.normalize(train.images[index]) for index in chosen)
        )
        size = code_bytes(groups) + beside
        accuracies = [
            f"{inference.accuracy(fitted, part):.4f}"
            for part in (context.data.validation, context.data.test)
        ]
        print(context.seed, f"{factor:g} ×", f"{dense / size:.1f} ×", *accuracies, sep="\t")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("seeds", metavar="SEED", nargs="*", type=int, default=[0])
    print("seed", "asked for", "smaller", "validation", "test", sep="\t")
    for seed in arguments.parse_args().seeds:
        params = parameters.read(*pipeline.declared("compress").params)
        compressed(Context("compress", seed, params, {}))


if __name__ == "__main__":
    main()
