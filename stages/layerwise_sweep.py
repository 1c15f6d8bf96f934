"""Prunes each layer alone (sensitivity), all layers to the same sparsity (uniform), and all layers
to the best trade-off of each.
"""

from itertools import product

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import outputs, paths, records


def sweep(context, scores) -> None:
    """Measures the network with each layer pruned alone to each sparsity."""
    from stages.lib.models import prunable
    from stages.lib.pruning import masks

    settings = list(product(scores, context.params.sparsities))
    for name, sparsity in context.progress(settings, "network"):
        mask = masks.keep_largest(scores[name], sparsity)
        context.results.record(
            masks.masked(context.baseline, {name: mask}),
            "layer_alone",
            layer=prunable.layer_of(name),
            target_sparsity=sparsity,
        )


def layers(context) -> None:
    from stages.lib.pruning import masks, tradeoff
    from stages.lib.pruning.criteria import magnitude

    params, baseline, results = context.params, context.baseline, context.results
    scores = magnitude.scores(baseline)
    sweep(context, scores)
    alone = list(results.rows)
    for sparsity in params.sparsities:
        pruned = masks.masked(baseline, masks.uniform(scores, sparsity))
        results.record(pruned, "uniform", target_sparsity=sparsity)

    (dense,) = context.rows("train_baseline", context.seed)
    least = dense.validation_accuracy - params.layerwise_sweep.max_accuracy_drop
    best = tradeoff.best_per_layer(alone, least)
    chosen = {name: point.sparsity for name, point in zip(scores, best, strict=True)}
    results.record(masks.masked(baseline, masks.per_layer(scores, chosen)), "best_per_layer")
    outputs.write_csv(
        context.directory / paths.BEST_TRADEOFF,
        records.BEST_SPARSITY,
        (point._asdict() for point in best),
    )


def arms(params) -> list[Arm]:
    return [Arm("all layers", layers)] if params.sparsities else []


if __name__ == "__main__":
    run_arms(arms, {paths.BEST_TRADEOFF: records.BEST_SPARSITY})
