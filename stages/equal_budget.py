"""Gives one-shot pruning, and the dense network, as many epochs as iterative pruning spends."""

from tqdm import tqdm

from stages.lib import masks, paths, results, setting
from stages.lib.cli import run_stage
from stages.lib.params import ALL
from stages.lib.recovery import recover


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    weights = masks.prunable(baseline)
    iterative = params.iterative_prune
    steps = masks.schedule(iterative.step, iterative.target, params.sparsities)
    spent = {
        sparsity: iterative.epochs_per_step * number for number, sparsity in enumerate(steps, 1)
    }
    chosen = params.equal_budget.sparsities
    if chosen == ALL:
        chosen = [point for point in params.sparsities if round(point, 6) in spent]
    arms = [
        ("baseline_long", 0.0, spent[steps[-1]]),
        *(("finetune_long", point, spent[round(point, 6)]) for point in chosen),
    ]
    with results.collect(paths.stage_directory("equal_budget", seed), ruler) as kept:
        for method, sparsity, epochs in tqdm(
            arms, "equal_budget", unit="model", leave=False, disable=None
        ):
            model = recover(
                at,
                baseline,
                params.training,
                seed,
                "equal_budget",
                f"{method} {sparsity:g}",
                epochs=epochs,
                learning_rate=iterative.learning_rate,
                held=masks.global_magnitude(weights, sparsity),
            )
            kept.keep(
                model,
                method,
                paths.model_name(method, sparsity),
                target_sparsity=sparsity,
                extra_epochs=epochs,
            )


if __name__ == "__main__":
    run_stage(
        main,
        reads=["sparsities", "compute", "model", "training", "iterative_prune", "equal_budget"],
        per_seed=True,
    )
