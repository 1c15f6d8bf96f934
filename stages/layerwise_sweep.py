"""Prunes each layer alone (sensitivity), and all layers to the same sparsity (uniform)."""

from tqdm import tqdm

from stages.lib import masks, outputs, paths, records, results, setting, tradeoff
from stages.lib.cli import run_stage


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    weights = masks.prunable(baseline)
    with results.collect(paths.stage_directory("layerwise_sweep", seed), ruler) as found:
        dense, _ = ruler.row(baseline, "baseline")
        sweep = tqdm(weights, "layerwise_sweep", unit="layer", leave=False, disable=None)
        for name in sweep:
            for sparsity in params.sparsities:
                pruned = masks.masked(baseline, masks.layer_magnitude(weights, name, sparsity))
                layer = name.removesuffix(".weight")
                found.note(pruned, "layer_alone", layer=layer, target_sparsity=sparsity)
        for sparsity in params.sparsities:
            pruned = masks.masked(baseline, masks.uniform_magnitude(weights, sparsity))
            found.note(pruned, "uniform", target_sparsity=sparsity)

        best = tradeoff.best_per_layer(
            [row for row in found.rows if row.method == "layer_alone"],
            dense.validation_accuracy - params.layerwise_sweep.max_accuracy_drop,
        )
        chosen = {f"{point.layer}.weight": point.sparsity for point in best}
        combined = masks.masked(baseline, masks.per_layer_magnitude(weights, chosen))
        found.note(combined, "best_per_layer")
        outputs.write_csv(
            found.directory / paths.BEST_TRADEOFF,
            records.BEST_SPARSITY,
            (point._asdict() for point in best),
        )


if __name__ == "__main__":
    run_stage(
        main,
        reads=["sparsities", "compute", "model", "layerwise_sweep"],
        per_seed=True,
    )
