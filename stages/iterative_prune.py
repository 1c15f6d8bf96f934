"""Prunes a step, trains a few epochs with the mask held, and goes on to the target sparsity."""

from tqdm import tqdm

from stages.lib import masks, paths, results, setting
from stages.lib.cli import run_stage
from stages.lib.recovery import recover


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    model, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    options = params.iterative_prune
    held = None
    spent = 0
    with results.collect(paths.stage_directory("iterative_prune", seed), ruler) as kept:
        steps = masks.schedule(options.step, options.target, params.sparsities)
        for sparsity in tqdm(steps, "iterative_prune", unit="step", leave=False, disable=None):
            held = masks.global_magnitude(masks.prunable(model), sparsity, within=held)
            model = recover(
                at,
                model,
                params.training,
                seed,
                "iterative_prune",
                f"{sparsity:g}",
                epochs=options.epochs_per_step,
                learning_rate=options.learning_rate,
                held=held,
            )
            spent += options.epochs_per_step
            kept.keep(
                model,
                "iterative",
                paths.model_name("iterative", sparsity),
                target_sparsity=sparsity,
                extra_epochs=spent,
            )


if __name__ == "__main__":
    run_stage(
        main,
        reads=["sparsities", "compute", "model", "training", "iterative_prune"],
        per_seed=True,
    )
