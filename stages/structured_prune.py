"""Masks whole filters, then removes them, then trains the smaller network."""

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import methods, outputs, paths, records
from stages.lib.core.errors import UserError

# Sums over fewer filters run in another order. A difference larger than this is not rounding.
TOLERANCE = 1e-4


def choices(context) -> None:
    """Makes all choices, so that a sparsity that cannot be reached is reported before training, and
    writes which filters may go.
    """
    from stages.lib.structured import analysis, ranking

    options, baseline = context.params.structured_prune, context.baseline
    try:
        plan = analysis.analyse(baseline, context.data.image_shape)
        for scope in options.scopes:
            for sparsity in options.sparsities:
                ranking.choose(baseline, plan, sparsity, scope, options.multiple_of)
    except UserError as error:
        raise UserError(
            f"structured_prune: seed {context.seed}: {error}"
            " (structured_prune.sparsities, .scopes, .multiple_of)"
        ) from None
    table = analysis.table(baseline, plan)
    outputs.write_csv(context.directory / paths.FILTERS, records.PRUNED_LAYER, table)


def finetuned(context, scope: str, sparsity: float) -> None:
    from stages.lib.evaluation import difference
    from stages.lib.structured import analysis, ranking, removal
    from stages.lib.training.distillation import Distillation
    from stages.lib.training.recovery import recover

    options, baseline, data = context.params.structured_prune, context.baseline, context.data
    plan = analysis.analyse(baseline, data.image_shape)
    chosen = ranking.choose(baseline, plan, sparsity, scope, options.multiple_of)
    small = removal.remove(baseline, plan, chosen)
    check = data.validation.normalize(data.validation.images[:16])
    largest = difference.largest(removal.mask(baseline, plan, chosen), small, check)
    if largest > TOLERANCE:
        raise UserError(
            f"structured_prune: {scope} {sparsity:g}: the small network's outputs differ"
            f" from the masked one's by {largest:.2g} (allowed: {TOLERANCE:g})"
        )
    pruned, trained = (
        method.name for method in methods.of_stage(context.name) if method.scope == scope
    )
    context.results.save(small, pruned, target_sparsity=sparsity)
    distilled = Distillation(context.teacher, options.distillation, options.temperature)
    network = recover(
        context,
        small,
        f"{scope} {sparsity:g}",
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        loss=distilled if options.distillation > 0 else None,
    )
    context.results.save(network, trained, target_sparsity=sparsity, extra_epochs=options.epochs)


def arms(params) -> list[Arm]:
    options = params.structured_prune
    settings = [(scope, sparsity) for scope in options.scopes for sparsity in options.sparsities]
    training = [Arm(f"{scope} {sparsity:g}", finetuned, (scope, sparsity))
                for scope, sparsity in settings]  # fmt: skip
    return [Arm("choices", choices), *training]


if __name__ == "__main__":
    run_arms(arms)
