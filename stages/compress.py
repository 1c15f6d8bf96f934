"""Packs the network smaller and smaller: pruned, quantized and trained for it, under a budget of
bytes; each of the two alone beside it.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from stages.lib import (
    allocation,
    checkpoints,
    compression,
    device,
    masks,
    norms,
    packed,
    paths,
    results,
    sensitivity,
    setting,
    training,
)
from stages.lib.cli import run_stage
from stages.lib.distillation import Distillation
from stages.lib.least_error import quantize
from stages.lib.quantization import Quantized, with_weights
from stages.lib.setting import Setting

# Pruned alone, each weight that stays has 8 bits; quantized alone, up to as many as it needs.
PRUNED_BITS = (8,)
QUANTIZED_BITS = (2, 3, 4, 5, 6, 7, 8)
# Batches of training images that batch norm's statistics are taken from at the end.
NORM_BATCHES = 10
# Codes change a little after the plan stands still, and so do their bytes.
MARGIN = 0.98


class Arm(NamedTuple):
    """method: what its rows are called; the sparsities and bits that a layer may have."""

    method: str
    sparsities: tuple[float, ...]
    bits: tuple[int, ...]


def arms(names: list[str], bits: list[int]) -> list[Arm]:
    """The arms that params name, in the order of the params."""
    known = {
        "both": Arm("packed", allocation.SPARSITIES, tuple(bits)),
        "pruned": Arm("packed_pruned", allocation.SPARSITIES, PRUNED_BITS),
        "quantized": Arm("packed_quantized", (0.0,), QUANTIZED_BITS),
    }
    return [known[name] for name in names]


class Compressed(NamedTuple):
    """A network that computes with its packed weights, and these."""

    model: nn.Module
    quantized: dict[str, Quantized]


def bytes_beside_codes(model: nn.Module, bits: int, granularity: str) -> int:
    """What a packed file of this network takes besides its codes: scales, norms, biases, header."""
    empty = {
        name: (found := quantize(weight, bits, granularity))._replace(Q=torch.zeros_like(found.Q))
        for name, weight in masks.prunable(model).items()
    }
    return len(packed.pack(norms.compacted(model), empty))


def smaller(
    at: Setting, seed: int, params, arm: Arm, teacher: nn.Module, dense: int
) -> Iterator[tuple[float, int, Compressed]]:
    """For each factor that the arm can reach: the factor, the epochs spent so far, the network.

    Each goes on from the one before. teacher: the baseline; dense: the bytes of its file.
    """
    options = params.compress
    model, spent = teacher, 0
    begin = dict.fromkeys(masks.prunable(model), 0.0)
    for factor in options.times_smaller:
        name = f"{arm.method} {factor:g}"
        stream = device.generator(seed, f"compress {name}")
        budget = MARGIN * dense / factor - bytes_beside_codes(
            model, max(arm.bits), options.granularity
        )
        damage = sensitivity.of_logits(model, at.data.train, options.sensitivity_images, stream)

        def plan(
            weights: Mapping[str, torch.Tensor], damage=damage, budget=budget
        ) -> dict[str, allocation.Choice]:
            layers = {
                name: allocation.choices(
                    weight, damage[name], arm.sparsities, arm.bits, options.granularity
                )
                for name, weight in weights.items()
            }
            return allocation.allocate(layers, budget)

        first = plan(masks.prunable(model))
        if sum(one.size for one in first.values()) > budget:
            return
        scheme = compression.Compressing(plan, begin, options.granularity, first)
        model, _ = training.fit(
            model,
            at.data,
            params.training,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            generator=stream,
            precision=at.precision,
            scheme=scheme,
            criterion=Distillation(teacher, options.distillation, options.temperature),
            label="compress",
        )
        masks.apply_(model, scheme.kept)
        spent += options.epochs
        quantized = scheme.quantized(model)
        begin = {name: float((one.Q == 0).double().mean()) for name, one in quantized.items()}
        order = torch.randperm(len(at.data.train.labels), generator=stream)
        batches = order[: NORM_BATCHES * at.data.train.batch_size].split(at.data.train.batch_size)
        finished = norms.compacted(
            norms.reestimated(
                with_weights(model, quantized),
                (at.data.train.normalize(at.data.train.images[index]) for index in batches),
            )
        )
        yield factor, spent, Compressed(finished, quantized)


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    dense = checkpoints.serialized_bytes(baseline)
    options = params.compress
    with results.collect(paths.stage_directory("compress", seed), ruler) as kept:
        for arm in tqdm(
            arms(options.arms, options.bits), "compress", unit="arm", leave=False, disable=None
        ):
            for factor, spent, found in smaller(at, seed, params, arm, baseline, dense):
                name = paths.packed_name(arm.method, factor)
                size = packed.save(kept.directory / name, found.model, found.quantized)
                # What is measured is what the file says.
                model, _ = packed.load(kept.directory / name)
                kept.keep_saved(
                    device.place(model, at.device),
                    arm.method,
                    name,
                    times_smaller=factor,
                    # The most that a layer may have: the same for every seed.
                    weight_bits=max(arm.bits),
                    extra_epochs=spent,
                    bytes_on_disk=size,
                )


if __name__ == "__main__":
    run_stage(main, reads=["compute", "model", "training", "compress"], per_seed=True)
