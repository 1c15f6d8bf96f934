"""Trains networks for given sizes of their packed files."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.compression import batch_norm, folding, packed
from stages.lib.compression.exact_rate import ExactRate
from stages.lib.compression.folding import Compact
from stages.lib.compression.single_methods import PrunedAlone, QuantizedAlone
from stages.lib.evaluation.context import Context
from stages.lib.evaluation.samples import Samples
from stages.lib.models import checkpoints
from stages.lib.quantization.linear import Quantized, with_weights
from stages.lib.training import loop
from stages.lib.training.distillation import Distillation

# Batches of training images from which batch norm's statistics are estimated at the end.
NORM_BATCHES = 10
# Images on which a compacted network is compared with the network before.
CHECK_IMAGES = 16
# A file takes at least this share of the bytes asked for; its codes are chosen for this one.
LEAST_SHARE, SHARE = 0.99, 0.995
# How often codes are chosen again until the file has its size.
TRIES = 12
# The width of codes in every arm; zeros and small codes take less room in the file.
BITS = 8


class Arm(NamedTuple):
    """A way to make a network smaller: the method of its rows, and how it trains."""

    method: str
    scheme: type[ExactRate]


ARMS = {
    "both": Arm("packed", ExactRate),
    "pruned": Arm("packed_pruned", PrunedAlone),
    "quantized": Arm("packed_quantized", QuantizedAlone),
}


class Size(NamedTuple):
    """A network of one size.

    times_smaller: the target, relative to the baseline's file.
    epochs: of training so far, with those of larger sizes.
    network: for the packed file; None if the size is out of reach.
    note: why it is.
    """

    times_smaller: float
    epochs: int
    network: Compact | None
    note: str = ""


def packed_bytes(network: Compact) -> int:
    """The bytes of the network's packed file."""
    return len(packed.pack(network.model, network.quantized))


def bytes_beside(scheme: ExactRate, model: nn.Module, batch: torch.Tensor) -> float:
    """What a packed file of the network takes beside the entropy of its codes: scales, norms,
    biases, header and tables.

    batch: some normalized images.
    """
    network = folding.compacted(model, scheme.quantized(model), batch)
    return packed_bytes(network) - scheme.bits(model) / 8


def least_bytes(scheme: ExactRate, model: nn.Module, batch: torch.Tensor) -> int:
    """The bytes of a packed file of the network if all its codes are zero."""
    empty = {
        name: parts._replace(Q=torch.zeros_like(parts.Q))
        for name, parts in scheme.quantized(model).items()
    }
    return packed_bytes(folding.compacted(model, empty, batch))


def finished(
    model: nn.Module,
    quantized: Mapping[str, Quantized],
    train: Samples,
    batches: list[torch.Tensor],
) -> Compact:
    """The trained network as it is packed, with batch norms recalibrated to its codes.

    batches: indices of training images.
    """
    fitted = batch_norm.recalibrated(
        with_weights(model, quantized), (train.normalize(train.images[index]) for index in batches)
    )
    return folding.compacted(
        fitted, quantized, train.normalize(train.images[batches[0][:CHECK_IMAGES]])
    )


def of_size(
    scheme: ExactRate, model: nn.Module, budget: float, train: Samples, stream: torch.Generator
) -> Compact:
    """The trained network whose packed file takes `budget` bytes, or less by a hundredth at most
    where single codes allow it.
    """
    batches = loop.batches(len(train.labels), train.batch_size, stream)[:NORM_BATCHES]
    best, most, bits = None, -1, scheme.last_bits
    for _ in range(TRIES):
        scheme.hold(model, bits)
        network = finished(model, scheme.quantized(model), train, batches)
        size = packed_bytes(network)
        if most < size <= budget:
            best, most = network, size
        if LEAST_SHARE * budget <= size <= budget:
            break
        bits = max(bits + 8 * (SHARE * budget - size), 1.0)
    return best


def uncompressed(context: Context) -> tuple[nn.Module, int]:
    """The control of all sizes: the baseline, trained on in float32 by the same teacher for as many
    epochs as the smallest file, which it also gives.
    """
    options = context.params.compress
    epochs = options.epochs * len(options.times_smaller)
    model, _ = loop.fit(
        context.baseline,
        context.data,
        context.params.training,
        epochs=epochs,
        learning_rate=options.learning_rate,
        generator=context.generator("uncompressed"),
        precision=context.precision,
        replayed=context.replayed,
        loss=Distillation(context.teacher, options.distillation, options.temperature),
        states=context.states,
        label=context.name,
    )
    return model, epochs


def sizes(context: Context, arm: Arm) -> Iterator[Size]:
    """Yields a network for each of compress.times_smaller, in order. Each training goes on where
    the one before ended.
    """
    options, model, train = context.params.compress, context.baseline, context.data.train
    dense = checkpoints.serialized_bytes(model)
    some = train.normalize(train.images[:CHECK_IMAGES])
    epochs, scheme = 0, arm.scheme(model)
    distilled = Distillation(context.teacher, options.distillation, options.temperature)
    for factor in options.times_smaller:
        budget = dense / factor
        least = least_bytes(scheme, model, some)
        if least >= LEAST_SHARE * budget:
            yield Size(factor, epochs, None, f"without any code the file takes {least:,} bytes")
            continue
        stream = context.generator(f"{arm.method} {factor:g}")
        # The file's tables depend on its codes, so these are tried before the training.
        scheme.hold(model, 8 * (SHARE * budget - least))
        scheme.aim(max(8 * (SHARE * budget - bytes_beside(scheme, model, some)), 1.0))
        model, _ = loop.fit(
            model,
            context.data,
            context.params.training,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            generator=stream,
            precision=context.precision,
            replayed=context.replayed,
            scheme=scheme,
            loss=distilled,
            label=context.name,
            states=context.states,
        )
        epochs += options.epochs
        yield Size(factor, epochs, of_size(scheme, model, budget, train, stream))
