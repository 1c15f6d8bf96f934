"""Prunes each layer alone (sensitivity), and all layers to the same sparsity (uniform)."""

from stages.lib import masks, outputs, paths, records, replay, results, setting, tradeoff
from stages.lib.cli import run_stage
from stages.lib.measuring import Predicted


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    dense = records.read(paths.stage_directory("train_baseline", seed) / paths.ROWS)[0]
    weights = masks.prunable(baseline)
    alone = {
        name: [
            masks.layer_magnitude(weights, name, sparsity)[name] for sparsity in params.sparsities
        ]
        for name in weights
    }
    with results.collect(paths.stage_directory("layerwise_sweep", seed), ruler) as found:
        validation, test = (
            replay.predict_masked(baseline, samples, alone, f"layerwise_sweep {part}")
            for part, samples in (("validation", at.data.validation), ("test", at.data.test))
        )
        for name, variants in alone.items():
            for index, sparsity in enumerate(params.sparsities):
                found.note(
                    masks.masked(baseline, {name: variants[index]}),
                    "layer_alone",
                    layer=masks.layer_of(name),
                    target_sparsity=sparsity,
                    predicted=Predicted(validation[name][index], test[name][index]),
                )
        for sparsity in params.sparsities:
            pruned = masks.masked(baseline, masks.uniform_magnitude(weights, sparsity))
            found.note(pruned, "uniform", target_sparsity=sparsity)

        best = tradeoff.best_per_layer(
            [row for row in found.rows if row.method == "layer_alone"],
            dense.validation_accuracy - params.layerwise_sweep.max_accuracy_drop,
        )
        chosen = {name: point.sparsity for name, point in zip(weights, best, strict=True)}
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
