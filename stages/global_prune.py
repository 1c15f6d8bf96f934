"""Prunes the smallest weights of the network by one threshold over all layers."""

from stages.lib.core.stage import run_stage
from stages.lib.evaluation.context import Context
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude


def main(context: Context) -> None:
    scores = magnitude.scores(context.baseline)
    for sparsity in context.params.sparsities:
        pruned = masks.masked(context.baseline, masks.global_(scores, sparsity))
        context.results.save(pruned, "global", target_sparsity=sparsity)


if __name__ == "__main__":
    run_stage(main, Context)
