"""Trains each globally pruned network again for a few epochs, its masks held."""

from tqdm import tqdm

from stages.lib import masks, paths, results, setting
from stages.lib.cli import run_stage
from stages.lib.recovery import recover


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    _, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    options = params.finetune
    pruned_models = paths.stage_directory("global_prune", seed)
    with results.collect(paths.stage_directory("finetune", seed), ruler) as kept:
        for sparsity in tqdm(
            params.sparsities, "finetune", unit="model", leave=False, disable=None
        ):
            pruned = setting.load_network(at, pruned_models / paths.model_name("global", sparsity))
            model = recover(
                at,
                pruned,
                params.training,
                seed,
                "finetune",
                f"{sparsity:g}",
                epochs=options.epochs,
                learning_rate=options.learning_rate,
                held=masks.of_zeros(pruned),
            )
            kept.keep(
                model,
                "finetune",
                paths.model_name("finetune", sparsity),
                target_sparsity=sparsity,
                extra_epochs=options.epochs,
            )


if __name__ == "__main__":
    run_stage(
        main,
        reads=["sparsities", "compute", "model", "training", "finetune"],
        per_seed=True,
    )
