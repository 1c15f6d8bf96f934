"""Prunes, quantizes and trains networks for given sizes of their packed files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.compression import (
    allocation,
    batch_norm,
    folding,
    packed,
    quantization_aware,
    sensitivity,
)
from stages.lib.compression.folding import Compact
from stages.lib.evaluation.context import Context
from stages.lib.evaluation.samples import Samples
from stages.lib.models import checkpoints, prunable
from stages.lib.pruning import masks
from stages.lib.quantization.linear import Quantized, with_weights
from stages.lib.quantization.mse_scales import quantize
from stages.lib.training import loop
from stages.lib.training.distillation import Distillation

# With pruning alone, weights have 8 bits; with quantization alone, up to as many as they need.
PRUNED_BITS = (8,)
QUANTIZED_BITS = (2, 3, 4, 5, 6, 7, 8)
# Batches of training images from which batch norm's statistics are estimated at the end.
NORM_BATCHES = 10
# Images on which a compacted network is compared with the network before.
CHECK_IMAGES = 16
# A reserve: codes, and so their bytes, still change a little after the last plan.
MARGIN = 0.98


class Arm(NamedTuple):
    """A way to make a network smaller.

    method: of its rows.
    sparsities, bits: the choices for a layer.
    """

    method: str
    sparsities: tuple[float, ...]
    bits: tuple[int, ...]


def arms(names: Sequence[str], bits: Sequence[int]) -> list[Arm]:
    """The arms in the params, in their order."""
    known = {
        "both": Arm("packed", allocation.SPARSITIES, tuple(bits)),
        "pruned": Arm("packed_pruned", allocation.SPARSITIES, PRUNED_BITS),
        "quantized": Arm("packed_quantized", (0.0,), QUANTIZED_BITS),
    }
    return [known[name] for name in names]


class Size(NamedTuple):
    """A network of one size.

    times_smaller: the target, relative to the baseline's file.
    epochs: of training so far, with those of larger sizes.
    network: for the packed file.
    """

    times_smaller: float
    epochs: int
    network: Compact


def bytes_beside_codes(model: nn.Module, bits: int, granularity: str, batch: torch.Tensor) -> int:
    """The bytes of a packed file of this network without its codes: scales, norms, biases, header.

    batch: some normalized images.
    """
    quantized = {
        name: quantize(weight, bits, granularity)
        for name, weight in prunable.weights(model).items()
    }
    small = folding.compacted(model, quantized, batch)
    empty = {
        name: parts._replace(Q=torch.zeros_like(parts.Q)) for name, parts in small.quantized.items()
    }
    return len(packed.pack(small.model, empty))


def finished(
    model: nn.Module, quantized: Mapping[str, Quantized], train: Samples, stream: torch.Generator
) -> Compact:
    """The trained network as it is packed, with batch norms recalibrated to its codes."""
    chosen = loop.batches(len(train.labels), train.batch_size, stream)[:NORM_BATCHES]
    fitted = batch_norm.recalibrated(
        with_weights(model, quantized), (train.normalize(train.images[index]) for index in chosen)
    )
    return folding.compacted(
        fitted, quantized, train.normalize(train.images[chosen[0][:CHECK_IMAGES]])
    )


def sizes(context: Context, arm: Arm) -> Iterator[Size]:
    """Yields the network for each of compress.times_smaller that the arm can reach, in order. Each
    starts from the one before. The baseline is the teacher.
    """
    options, teacher, train = context.params.compress, context.baseline, context.data.train
    dense = checkpoints.serialized_bytes(teacher)
    some = train.normalize(train.images[:CHECK_IMAGES])
    model, epochs = teacher, 0
    begin = dict.fromkeys(prunable.weights(model), 0.0)
    for factor in options.times_smaller:
        stream = context.generator(f"{arm.method} {factor:g}")
        budget = MARGIN * dense / factor - bytes_beside_codes(
            model, max(arm.bits), options.granularity, some
        )
        weighting = sensitivity.of_logits(model, train, options.sensitivity_images, stream)

        def plan(
            weights: Mapping[str, torch.Tensor], weighting=weighting, budget=budget
        ) -> dict[str, allocation.Choice]:
            layers = {
                name: allocation.choices(
                    weight, weighting[name], arm.sparsities, arm.bits, options.granularity
                )
                for name, weight in weights.items()
            }
            return allocation.allocate(layers, budget)

        first = plan(prunable.weights(model))
        if allocation.size_of(first) > budget:
            return
        scheme = quantization_aware.QuantizationAware(plan, begin, options.granularity, first)
        model, _ = loop.fit(
            model,
            context.data,
            context.params.training,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            generator=stream,
            precision=context.precision,
            scheme=scheme,
            loss=Distillation(teacher, options.distillation, options.temperature),
            label=context.name,
        )
        masks.apply_(model, scheme.masks)
        epochs += options.epochs
        quantized = scheme.quantized(model)
        # A layer may have lost all its codes; a mask keeps some weights of each.
        begin = {
            name: min(float((parts.Q == 0).double().mean()), allocation.SPARSITIES[-1])
            for name, parts in quantized.items()
        }
        yield Size(factor, epochs, finished(model, quantized, train, stream))
