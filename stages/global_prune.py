"""Prunes the smallest weights of the whole network, one threshold over all layers."""

from stages.lib import masks, paths, results, setting
from stages.lib.cli import run_stage


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    weights = masks.prunable(baseline)
    with results.collect(paths.stage_directory("global_prune", seed), ruler) as kept:
        for sparsity in params.sparsities:
            pruned = masks.masked(baseline, masks.global_magnitude(weights, sparsity))
            name = paths.model_name("global", sparsity)
            kept.keep(pruned, "global", name, target_sparsity=sparsity)


if __name__ == "__main__":
    run_stage(main, reads=["sparsities", "compute", "model"], per_seed=True)
