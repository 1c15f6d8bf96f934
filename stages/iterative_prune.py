"""Prunes a step, trains a few epochs with the masks held, and repeats up to the target sparsity."""

from stages.lib.arms.running import Arm, run_arms, trained
from stages.lib.pruning import schedule


def steps(params) -> list[float]:
    options = params.iterative_prune
    return schedule.sparsities(options.step, options.target, params.sparsities)


def chain(context) -> None:
    from stages.lib.pruning import masks
    from stages.lib.pruning.criteria import magnitude
    from stages.lib.training.recovery import recover

    options = context.params.iterative_prune
    network, chosen, epochs = context.baseline, None, 0
    for sparsity in context.progress(steps(context.params), "step"):
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


def arms(params) -> list[Arm]:
    networks = trained("iterative", steps(params))
    return [Arm("all steps", chain, (), networks)] if params.sparsities else []


if __name__ == "__main__":
    run_arms(arms)
