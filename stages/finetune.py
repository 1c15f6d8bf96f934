"""Trains each globally pruned network for a few more epochs. Pruned weights stay zero."""

from stages.lib.core import paths
from stages.lib.core.stage import run_stage
from stages.lib.evaluation.context import Context
from stages.lib.pruning import masks
from stages.lib.training.recovery import recover


def main(context: Context) -> None:
    options = context.params.finetune
    pruned_networks = paths.stage_directory("global_prune", context.seed)
    for sparsity in context.progress(context.params.sparsities, "network"):
        file = paths.network_name("global", sparsity) + paths.SAFETENSORS
        pruned = context.network(pruned_networks / file)
        network = recover(
            context,
            pruned,
            f"{sparsity:g}",
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            masks=masks.of_zeros(pruned),
        )
        context.results.save(
            network, "finetune", target_sparsity=sparsity, extra_epochs=options.epochs
        )


if __name__ == "__main__":
    run_stage(main, Context)
