"""Prunes the smallest weights of the network by one threshold over all layers."""

from stages.lib.arms.running import Arm, run_arms


def pruned(context) -> None:
    from stages.lib.pruning import masks
    from stages.lib.pruning.criteria import magnitude

    scores = magnitude.scores(context.baseline)
    for sparsity in context.params.sparsities:
        network = masks.masked(context.baseline, masks.global_(scores, sparsity))
        context.results.save(network, "global", target_sparsity=sparsity)


def arms(params) -> list[Arm]:
    return [Arm("all sparsities", pruned)]


if __name__ == "__main__":
    run_arms(arms)
