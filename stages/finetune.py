"""Trains each globally pruned network for a few more epochs. Pruned weights stay zero."""

from stages.lib.arms.running import Arm, run_arms, trained
from stages.lib.core import paths


def finetuned(context, sparsity: float) -> None:
    from stages.lib.pruning import masks
    from stages.lib.training.recovery import recover

    options = context.params.finetune
    file = paths.network_name("global", sparsity) + paths.SAFETENSORS
    pruned = context.network(paths.stage_directory("global_prune", context.seed) / file)
    network = recover(
        context,
        pruned,
        f"{sparsity:g}",
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        masks=masks.of_zeros(pruned),
    )
    context.results.save(network, "finetune", target_sparsity=sparsity, extra_epochs=options.epochs)


def arms(params) -> list[Arm]:
    return [
        Arm(f"{sparsity:g}", finetuned, (sparsity,), trained("finetune", [sparsity]))
        for sparsity in params.sparsities
    ]


if __name__ == "__main__":
    run_arms(arms)
