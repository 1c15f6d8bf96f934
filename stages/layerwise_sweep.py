"""Prunes each layer alone (sensitivity), and all layers to the same sparsity (uniform)."""

from stages.lib.core import outputs, paths, records
from stages.lib.core.stage import run_stage
from stages.lib.evaluation import replay
from stages.lib.evaluation.context import Context
from stages.lib.evaluation.evaluator import Predicted
from stages.lib.models import prunable
from stages.lib.pruning import masks, tradeoff


def sweep(context: Context) -> None:
    """Records each layer, pruned alone to each sparsity."""
    sparsities, baseline = context.params.sparsities, context.baseline
    weights = prunable.weights(baseline)
    variants = {
        name: [masks.layer_magnitude(weights, name, sparsity)[name] for sparsity in sparsities]
        for name in weights
    }
    validation, test = (
        replay.predict_masked(baseline, samples, variants, f"layerwise_sweep {part}")
        for part, samples in (("validation", context.data.validation), ("test", context.data.test))
    )
    for name, masks_of_layer in variants.items():
        for index, sparsity in enumerate(sparsities):
            context.results.record(
                masks.masked(baseline, {name: masks_of_layer[index]}),
                "layer_alone",
                layer=prunable.layer_of(name),
                target_sparsity=sparsity,
                predicted=Predicted(validation[name][index], test[name][index]),
            )


def main(context: Context) -> None:
    params, baseline, results = context.params, context.baseline, context.results
    weights = prunable.weights(baseline)
    sweep(context)
    alone = list(results.rows)
    for sparsity in params.sparsities:
        pruned = masks.masked(baseline, masks.uniform_magnitude(weights, sparsity))
        results.record(pruned, "uniform", target_sparsity=sparsity)

    (dense,) = records.read(paths.stage_directory("train_baseline", context.seed) / paths.ROWS)
    least = dense.validation_accuracy - params.layerwise_sweep.max_accuracy_drop
    best = tradeoff.best_per_layer(alone, least)
    chosen = {name: point.sparsity for name, point in zip(weights, best, strict=True)}
    combined = masks.masked(baseline, masks.per_layer_magnitude(weights, chosen))
    results.record(combined, "best_per_layer")
    outputs.write_csv(
        context.directory / paths.BEST_TRADEOFF,
        records.BEST_SPARSITY,
        (point._asdict() for point in best),
    )


if __name__ == "__main__":
    run_stage(main, Context)
