"""What the methods are held against: weights chosen by chance; other networks fine-tuned as global
pruning is; one-shot pruning and the baseline, trained for as long as iterative pruning.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.core.params import ALL
from stages.lib.core.stage import run_stage
from stages.lib.evaluation.context import Context
from stages.lib.models import prunable
from stages.lib.pruning import masks, schedule
from stages.lib.training.recovery import recover


class Arm(NamedTuple):
    """A network to train. masks: None for the whole network; saved: whether its file is kept."""

    method: str
    sparsity: float
    masks: masks.Masks | None
    epochs: int
    learning_rate: float
    saved: bool


def choices(baseline: nn.Module, stream: torch.Generator) -> dict[str, Callable[[float], dict]]:
    """The ways to choose weights, by method: from a sparsity to masks."""
    weights = prunable.weights(baseline)
    chance = masks.random_scores(weights, stream)
    return {
        "random_uniform": lambda sparsity: masks.uniform_magnitude(chance, sparsity),
        "random_global": lambda sparsity: masks.global_magnitude(chance, sparsity),
        "uniform": lambda sparsity: masks.uniform_magnitude(weights, sparsity),
    }


def finetuned(params, chosen: dict[str, Callable[[float], dict]]) -> Iterator[Arm]:
    """The arms that are fine-tuned for as long as globally pruned networks."""
    epochs, rate = params.finetune.epochs, params.finetune.learning_rate
    for method in params.controls.finetuned:
        for sparsity in [0.0] if method == "baseline" else params.sparsities:
            kept = chosen[method](sparsity) if method in chosen else None
            yield Arm(f"{method}_finetune", sparsity, kept, epochs, rate, False)


def equal_budget(params, baseline: nn.Module) -> Iterator[Arm]:
    """The arms that are trained for as long as iterative pruning was until their sparsity."""
    iterative, asked = params.iterative_prune, params.controls.equal_budget
    steps = schedule.sparsities(iterative.step, iterative.target, params.sparsities)
    spent = {
        sparsity: iterative.epochs_per_step * number for number, sparsity in enumerate(steps, 1)
    }
    if asked == ALL:
        asked = [sparsity for sparsity in params.sparsities if round(sparsity, 6) in spent]
    rate, weights = iterative.learning_rate, prunable.weights(baseline)
    yield Arm("baseline_long", 0.0, None, spent[steps[-1]], rate, True)
    for sparsity in asked:
        kept = masks.global_magnitude(weights, sparsity)
        yield Arm("finetune_long", sparsity, kept, spent[round(sparsity, 6)], rate, True)


def main(context: Context) -> None:
    params, baseline, results = context.params, context.baseline, context.results
    chosen = choices(baseline, context.generator("choice"))
    for method in ("random_uniform", "random_global"):
        for sparsity in params.sparsities:
            pruned = masks.masked(baseline, chosen[method](sparsity))
            results.record(pruned, method, target_sparsity=sparsity)
    arms = [*finetuned(params, chosen), *equal_budget(params, baseline)]
    for arm in context.progress(arms, "network"):
        network = recover(
            context,
            baseline,
            f"{arm.method} {arm.sparsity:g}",
            epochs=arm.epochs,
            learning_rate=arm.learning_rate,
            masks=arm.masks,
        )
        measure = results.save if arm.saved else results.record
        measure(network, arm.method, target_sparsity=arm.sparsity, extra_epochs=arm.epochs)


if __name__ == "__main__":
    run_stage(main, Context)
