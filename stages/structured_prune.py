"""Masks whole filters, then removes them, then trains the smaller network."""

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import methods, outputs, paths, records
from stages.lib.core.errors import UserError

# Sums over fewer filters run in another order. A difference larger than this is not rounding.
TOLERANCE = 1e-4


def plan_of(context):
    """What belongs together in the baseline. One context serves many arms: it is found once."""
    from stages.lib.structured import analysis

    if not hasattr(context, "plan"):
        context.plan = analysis.analyse(context.baseline, context.data.image_shape)
    return context.plan


def chosen(context, plan, scope: str, sparsity: float):
    """The units to remove, bool [units]."""
    from stages.lib.structured import latency_ranking, ranking, taylor

    baseline, multiple = context.baseline, context.params.structured_prune.multiple_of
    if scope != "latency":
        return ranking.choose(baseline, plan, sparsity, scope, multiple)
    losses = taylor.losses(baseline, plan, context.data.train, context.generator("losses"))
    table = latency_ranking.read(paths.stage_directory("layer_bench") / paths.ROWS)
    return latency_ranking.choose(baseline, plan, sparsity, multiple, losses, table)


def filters(context) -> None:
    """Writes which filters may go."""
    from stages.lib.structured import analysis

    try:
        plan = plan_of(context)
        table = analysis.table(context.baseline, plan)
    except UserError:  # the reason is told of each network that cannot be made
        table = []
    outputs.write_csv(context.directory / paths.FILTERS, records.PRUNED_LAYER, table)


def without_filters(context, scope: str, sparsity: float):
    """The small network. UserError if it cannot be made, or computes something else."""
    from stages.lib.evaluation import difference
    from stages.lib.structured import removal

    baseline, data = context.baseline, context.data
    plan = plan_of(context)
    removed = chosen(context, plan, scope, sparsity)
    small = removal.remove(baseline, plan, removed)
    check = data.validation.normalize(data.validation.images[:16])
    largest = difference.largest(removal.mask(baseline, plan, removed), small, check)
    if largest > TOLERANCE:
        raise UserError(
            f"the small network's outputs differ from the masked one's by {largest:.2g} (allowed:"
            f" {TOLERANCE:g})"
        )
    return small


def finetuned(context, scope: str, sparsity: float) -> None:
    from stages.lib.training import distillation
    from stages.lib.training.recovery import recover

    options = context.params.structured_prune
    pruned, trained = (
        method.name for method in methods.of_stage(context.name) if method.scope == scope
    )
    try:
        small = without_filters(context, scope, sparsity)
    except UserError as error:
        for method in (pruned, trained):
            context.results.refuse(method, str(error), target_sparsity=sparsity)
        return
    context.results.save(small, pruned, target_sparsity=sparsity)
    if context.without_training_images:
        context.results.refuse(trained, records.NO_TRAINING_IMAGES, target_sparsity=sparsity)
        return
    network = recover(
        context,
        small,
        f"{scope} {sparsity:g}",
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        loss=distillation.asked(context, options),
    )
    context.results.save(network, trained, target_sparsity=sparsity, extra_epochs=options.epochs)


def arms(params) -> list[Arm]:
    options = params.structured_prune
    settings = [(scope, sparsity) for scope in options.scopes for sparsity in options.sparsities]
    training = [Arm(f"{scope} {sparsity:g}", finetuned, (scope, sparsity))
                for scope, sparsity in settings]  # fmt: skip
    return [Arm("filters", filters), *training]


if __name__ == "__main__":
    run_arms(arms)
