"""What the methods are held against: weights chosen by chance, uniform pruning trained as global
pruning is, the dense network trained as long.
"""

from tqdm import tqdm

from stages.lib import device, masks, paths, results, setting
from stages.lib.cli import run_stage
from stages.lib.recovery import recover


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    weights = masks.prunable(baseline)
    chance = masks.random_scores(weights, device.generator(seed, "controls"))
    chosen = {
        "random_uniform": lambda sparsity: masks.uniform_magnitude(chance, sparsity),
        "random_global": lambda sparsity: masks.global_magnitude(chance, sparsity),
        "uniform": lambda sparsity: masks.uniform_magnitude(weights, sparsity),
    }
    trained = [
        (arm, sparsity)
        for arm in params.controls.finetuned
        for sparsity in ([0.0] if arm == "baseline" else params.sparsities)
    ]
    with results.collect(paths.stage_directory("controls", seed), ruler) as found:
        for method in ("random_uniform", "random_global"):
            for sparsity in params.sparsities:
                pruned = masks.masked(baseline, chosen[method](sparsity))
                found.note(pruned, method, target_sparsity=sparsity)
        for arm, sparsity in tqdm(trained, "controls", unit="model", leave=False, disable=None):
            held = chosen[arm](sparsity) if arm in chosen else None
            model = recover(
                at,
                baseline,
                params.training,
                seed,
                "controls",
                f"{arm} {sparsity:g}",
                epochs=params.finetune.epochs,
                learning_rate=params.finetune.learning_rate,
                held=held,
            )
            found.note(
                model,
                f"{arm}_finetune",
                target_sparsity=sparsity,
                extra_epochs=params.finetune.epochs,
            )


if __name__ == "__main__":
    run_stage(
        main,
        reads=["sparsities", "compute", "model", "training", "finetune", "controls"],
        per_seed=True,
    )
