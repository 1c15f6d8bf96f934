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
from stages.lib.training import distillation, loop
from stages.lib.training.recovery import recover

# Batch norm's statistics are estimated at the end from training images of so many pixels in all:
# 5,000 images of 32×32 pixels.
NORM_PIXELS = 5_000 * 32 * 32
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
    note: why it is out of reach.
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


def norm_batches(train: Samples, stream: torch.Generator) -> list[torch.Tensor]:
    """The indices of the images from which batch norm's statistics are estimated, by batch."""
    batches = loop.batches(len(train.labels), train.batch_size, stream)
    return batches[: -(-NORM_PIXELS // (train.pixels * train.batch_size))]


def of_size(
    scheme: ExactRate, model: nn.Module, budget: float, train: Samples, stream: torch.Generator
) -> Compact | None:
    """The trained network whose packed file takes `budget` bytes, or less by a hundredth at most
    where single codes allow it; None if every file is larger.
    """
    batches = norm_batches(train, stream)
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


def taught(
    context: Context, model: nn.Module, arm: str, scheme: loop.TrainingScheme | None = None
) -> nn.Module:
    """A copy of the network after compress.epochs of training with the teacher."""
    options = context.params.compress
    return recover(
        context,
        model,
        arm,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        scheme=scheme,
        loss=distillation.asked(context, options),
    )


def sizes(context: Context, arm: Arm) -> Iterator[Size]:
    """Yields a network for each of compress.times_smaller, in order. Each training goes on where
    the one before ended.
    """
    options, baseline, train = context.params.compress, context.baseline, context.data.train
    dense = checkpoints.serialized_bytes(baseline)
    some = train.normalize(train.images[:CHECK_IMAGES])
    model, epochs, scheme = baseline, 0, arm.scheme(baseline)
    for factor in options.times_smaller:
        asked = int(dense / factor)
        least = least_bytes(scheme, model, some)
        if least >= LEAST_SHARE * asked:
            note = f"{asked:,} bytes are asked for; without a single code it takes {least:,}"
            yield Size(factor, epochs, None, note)
            continue
        name = f"{arm.method} {factor:g}"
        # The file's tables depend on its codes, so these are tried before the training.
        scheme.hold(model, 8 * (SHARE * asked - least))
        scheme.aim(max(8 * (SHARE * asked - bytes_beside(scheme, model, some)), 1.0))
        model = taught(context, model, name, scheme)
        epochs += options.epochs
        network = of_size(scheme, model, asked, train, context.generator(f"{name} norms"))
        note = f"{asked:,} bytes are asked for; every layer has as few codes as leave it one"
        yield Size(factor, epochs, network, "" if network else note)


def uncompressed(context: Context) -> tuple[nn.Module, int]:
    """The control: the baseline, trained as long as the smallest size with the same teacher; and
    its epochs.
    """
    options, model = context.params.compress, context.baseline
    for factor in options.times_smaller:
        model = taught(context, model, f"baseline {factor:g}")
    return model, options.epochs * len(options.times_smaller)
