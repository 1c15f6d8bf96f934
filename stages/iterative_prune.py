"""Prunes a step, trains a few epochs with the masks held, and repeats up to the target sparsity."""

from stages.lib.core.stage import run_stage
from stages.lib.evaluation.context import Context
from stages.lib.pruning import masks, schedule
from stages.lib.pruning.criteria import magnitude
from stages.lib.training.recovery import recover


def main(context: Context) -> None:
    options = context.params.iterative_prune
    network, chosen, epochs = context.baseline, None, 0
    steps = schedule.sparsities(options.step, options.target, context.params.sparsities)
    for sparsity in context.progress(steps, "step"):
        chosen = masks.global_(magnitude.scores(network), sparsity, within=chosen)
        network = recover(
            context,
            network,
            f"{sparsity:g}",
            epochs=options.epochs_per_step,
            learning_rate=options.learning_rate,
            masks=chosen,
        )
        epochs += options.epochs_per_step
        context.results.save(network, "iterative", target_sparsity=sparsity, extra_epochs=epochs)


if __name__ == "__main__":
    run_stage(main, Context)
