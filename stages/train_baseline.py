"""Trains the dense float32 network that every method starts from."""

from dataclasses import asdict

from stages.lib import (
    counting,
    device,
    models,
    outputs,
    paths,
    records,
    results,
    setting,
    training,
)
from stages.lib.cli import run_stage
from stages.lib.measuring import Ruler


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    model, curve = training.fit(
        models.build_seeded(at.architecture, seed).to(at.device),
        at.data,
        params.training,
        epochs=params.train_baseline.epochs,
        learning_rate=params.train_baseline.learning_rate,
        generator=device.generator(seed, "train_baseline"),
        label="train_baseline",
    )
    ruler = Ruler(seed, at.data, counting.prunable_weights(model))
    with results.collect(paths.stage_directory("train_baseline", seed), ruler) as kept:
        kept.keep(model, "baseline", paths.MODEL)
        curves = kept.directory / paths.LEARNING_CURVE
        outputs.write_csv(curves, records.EPOCH, map(asdict, curve))


if __name__ == "__main__":
    run_stage(
        main,
        reads=["compute", "model", "training", "train_baseline"],
        per_seed=True,
    )
