"""Trains the dense float32 network that every method starts from, or takes the user's weights."""

import sys
from dataclasses import asdict
from pathlib import Path

from torch import nn

from stages.lib import (
    counting,
    device,
    evaluation,
    masks,
    models,
    outputs,
    paths,
    records,
    results,
    setting,
    training,
    weights,
)
from stages.lib.cli import run_stage
from stages.lib.errors import UserError
from stages.lib.measuring import Ruler
from stages.lib.params import NO_WEIGHTS
from stages.lib.setting import Setting
from stages.lib.training import Epoch


def network(at: Setting, seed: int, file: str, epochs: int) -> nn.Module:
    """The network to train: fresh, or with the weights of `file` as far as they fit."""
    model = models.build_seeded(at.architecture, seed)
    models.check(model, at.data.image_shape, len(at.data.classes))
    if not masks.prunable(model):
        raise UserError("model.name: no convolution or linear layer, hence nothing to prune")
    idle = counting.unused(model, at.data.image_shape)
    if idle:
        raise UserError(
            f"model.name: no logit depends on {', '.join(idle[:3])}"
            f"{f' and {len(idle) - 3} more' if len(idle) > 3 else ''}: pruning it would look as if"
            " it cost nothing; take what is not used out of the network"
        )
    if file == NO_WEIGHTS:
        return model
    fitted = weights.fit(model, weights.read(Path(file)), len(at.data.classes), Path(file))
    if fitted.fresh:
        head = f"{', '.join(fitted.fresh)}: made for another number of classes"
        if epochs == 0:
            raise UserError(
                f"model.weights: {file}: {head} than the data's {len(at.data.classes)}, so the"
                " network has to be trained; set train_baseline.epochs to 1 or more"
            )
        print(f"train_baseline: {file}: {head}, starting fresh", file=sys.stderr)
    return model


def train(at: Setting, params, model: nn.Module, seed: int) -> tuple[nn.Module, list[Epoch]]:
    """The trained network and its learning curve, which for 0 epochs is one point."""
    if params.train_baseline.epochs == 0:
        found = {
            f"{part}_accuracy": evaluation.accuracy(model, getattr(at.data, part))
            for part in ("train", "validation")
        }
        return model.eval(), [Epoch(epoch=0, learning_rate=0.0, train_loss=None, **found)]
    return training.fit(
        model,
        at.data,
        params.training,
        epochs=params.train_baseline.epochs,
        learning_rate=params.train_baseline.learning_rate,
        precision=at.precision,
        generator=device.generator(seed, "train_baseline"),
        label="train_baseline",
    )


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    fresh = network(at, seed, params.model.weights, params.train_baseline.epochs)
    model, curve = train(at, params, device.place(fresh, at.device), seed)
    ruler = Ruler(seed, at.data, counting.prunable_weights(model))
    with results.collect(paths.stage_directory("train_baseline", seed), ruler) as kept:
        row = kept.keep(model, "baseline", paths.MODEL)
        curves = kept.directory / paths.LEARNING_CURVE
        outputs.write_csv(curves, records.EPOCH, map(asdict, curve))
        layers = counting.inventory(model, at.data.image_shape)
        outputs.write_csv(kept.directory / paths.LAYERS, records.LAYER, layers)
    if params.train_baseline.epochs == 0:
        print(
            f"train_baseline: {params.model.weights} as it is: test accuracy"
            f" {row.test_accuracy:.2%} of {len(at.data.test.labels)} images",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_stage(
        main,
        reads=["compute", "model", "training", "train_baseline"],
        per_seed=True,
    )
