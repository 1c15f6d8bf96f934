"""Prunes each layer alone (sensitivity), all layers to the same sparsity (uniform), and all layers
to the best trade-off of each.
"""

from stages.lib.core import outputs, paths, records
from stages.lib.core.stage import run_stage
from stages.lib.evaluation import replay
from stages.lib.evaluation.context import Context
from stages.lib.evaluation.evaluator import Predicted
from stages.lib.models import prunable
from stages.lib.pruning import masks, tradeoff
from stages.lib.pruning.criteria import magnitude


def sweep(context: Context, scores: masks.Scores) -> None:
    """Measures the network with each layer pruned alone to each sparsity."""
    sparsities, baseline, data = context.params.sparsities, context.baseline, context.data
    variants = {
        name: [masks.keep_largest(score, sparsity) for sparsity in sparsities]
        for name, score in scores.items()
    }
    validation, test = (
        replay.predict_masked(baseline, samples, variants, f"layerwise_sweep {part}")
        for part, samples in (("validation", data.validation), ("test", data.test))
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
    scores = magnitude.scores(baseline)
    sweep(context, scores)
    alone = list(results.rows)
    for sparsity in params.sparsities:
        pruned = masks.masked(baseline, masks.uniform(scores, sparsity))
        results.record(pruned, "uniform", target_sparsity=sparsity)

    (dense,) = records.read(paths.stage_directory("train_baseline", context.seed) / paths.ROWS)
    least = dense.validation_accuracy - params.layerwise_sweep.max_accuracy_drop
    best = tradeoff.best_per_layer(alone, least)
    chosen = {name: point.sparsity for name, point in zip(scores, best, strict=True)}
    results.record(masks.masked(baseline, masks.per_layer(scores, chosen)), "best_per_layer")
    outputs.write_csv(
        context.directory / paths.BEST_TRADEOFF,
        records.BEST_SPARSITY,
        (point._asdict() for point in best),
    )


if __name__ == "__main__":
    run_stage(main, Context)
