"""Masks whole filters, then removes them, then trains the smaller network."""

from stages.lib.core import methods, outputs, paths, records
from stages.lib.core.errors import UserError
from stages.lib.core.stage import run_stage
from stages.lib.evaluation import difference
from stages.lib.evaluation.context import Context
from stages.lib.structured import analysis, ranking, removal
from stages.lib.training.distillation import Distillation
from stages.lib.training.recovery import recover

# Sums over fewer filters run in another order. A difference larger than this is not rounding.
TOLERANCE = 1e-4


def main(context: Context) -> None:
    options, baseline, data = context.params.structured_prune, context.baseline, context.data
    check = data.validation.normalize(data.validation.images[:16])
    try:
        plan = analysis.analyse(baseline, data.image_shape)
        # All choices first, so that a sparsity that cannot be reached is reported before training.
        choices = [
            (scope, sparsity, ranking.choose(baseline, plan, sparsity, scope, options.multiple_of))
            for scope in options.scopes
            for sparsity in options.sparsities
        ]
    except UserError as error:
        raise UserError(
            f"structured_prune: seed {context.seed}: {error}"
            " (structured_prune.sparsities, .scopes, .multiple_of)"
        ) from None
    distilled = Distillation(baseline, options.distillation, options.temperature)
    outputs.write_csv(
        context.directory / paths.FILTERS, records.PRUNED_LAYER, analysis.table(baseline, plan)
    )
    for scope, sparsity, chosen in context.progress(choices, "network"):
        small = removal.remove(baseline, plan, chosen)
        largest = difference.largest(removal.mask(baseline, plan, chosen), small, check)
        if largest > TOLERANCE:
            raise UserError(
                f"structured_prune: {scope} {sparsity:g}: the small network's outputs differ"
                f" from the masked one's by {largest:.2g} (allowed: {TOLERANCE:g})"
            )
        pruned, finetuned = (
            method.name for method in methods.of_stage(context.name) if method.scope == scope
        )
        context.results.save(small, pruned, target_sparsity=sparsity)
        network = recover(
            context,
            small,
            f"{scope} {sparsity:g}",
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            loss=distilled if options.distillation > 0 else None,
        )
        context.results.save(
            network, finetuned, target_sparsity=sparsity, extra_epochs=options.epochs
        )


if __name__ == "__main__":
    run_stage(main, Context)
