"""Controls for the methods: pruning by other criteria, such as random; other networks fine-tuned as
the stage finetune does; one-shot pruning and the baseline with as many epochs as iterative pruning.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

from stages.lib.core import methods
from stages.lib.core.methods import METHODS, Method
from stages.lib.core.params import ALL
from stages.lib.core.stage import run_stage
from stages.lib.evaluation.context import Context
from stages.lib.pruning import criteria, masks, schedule
from stages.lib.training.recovery import recover


class Arm(NamedTuple):
    """A network to train.

    pruned: the method that chooses its weights.
    saved: whether its file is kept.
    """

    method: str
    pruned: Method
    sparsity: float
    epochs: int
    learning_rate: float
    saved: bool


def scores_by_criterion(context: Context) -> dict[str, masks.Scores]:
    """The scores of the baseline's weights by each criterion in the registry."""
    names = {method.criterion for method in METHODS.values() if method.criterion}
    return {
        name: import_module(f"{criteria.__name__}.{name}").scores(
            context.baseline, context.data.train, context.generator(name)
        )
        for name in names
    }


def chosen(method: Method, sparsity: float, scores: dict[str, masks.Scores]) -> masks.Masks:
    """The masks by a method's criterion and scope; no masks if it has no criterion."""
    if not method.criterion:
        return {}
    return masks.SCOPES[method.scope](scores[method.criterion], sparsity)


def finetuned(params) -> Iterator[Arm]:
    """The arms that are fine-tuned for as long as globally pruned networks are."""
    epochs, rate = params.finetune.epochs, params.finetune.learning_rate
    for name in params.controls.finetuned:
        method = methods.finetuned_by_controls()[name].name
        for sparsity in params.sparsities if METHODS[name].criterion else [0.0]:
            yield Arm(method, METHODS[name], sparsity, epochs, rate, False)


def equal_budget(params) -> Iterator[Arm]:
    """The arms that are trained for as many epochs as iterative pruning at the same sparsity."""
    iterative, asked = params.iterative_prune, params.controls.equal_budget
    steps = schedule.sparsities(iterative.step, iterative.target, params.sparsities)
    spent = {
        sparsity: iterative.epochs_per_step * number for number, sparsity in enumerate(steps, 1)
    }
    if asked == ALL:
        asked = [sparsity for sparsity in params.sparsities if round(sparsity, 6) in spent]
    rate, dense = iterative.learning_rate, METHODS["baseline"]
    yield Arm("baseline_long", dense, 0.0, spent[steps[-1]], rate, True)
    for sparsity in asked:
        epochs = spent[round(sparsity, 6)]
        yield Arm("finetune_long", METHODS["global"], sparsity, epochs, rate, True)


def main(context: Context) -> None:
    params, baseline, results = context.params, context.baseline, context.results
    scores = scores_by_criterion(context)
    for method in methods.of_stage("controls"):
        for sparsity in params.sparsities if method.criterion else []:
            pruned = masks.masked(baseline, chosen(method, sparsity, scores))
            results.record(pruned, method.name, target_sparsity=sparsity)
    arms = [*finetuned(params), *equal_budget(params)]
    for arm in context.progress(arms, "network"):
        network = recover(
            context,
            baseline,
            f"{arm.method} {arm.sparsity:g}",
            epochs=arm.epochs,
            learning_rate=arm.learning_rate,
            masks=chosen(arm.pruned, arm.sparsity, scores),
        )
        measure = results.save if arm.saved else results.record
        measure(network, arm.method, target_sparsity=arm.sparsity, extra_epochs=arm.epochs)


if __name__ == "__main__":
    run_stage(main, Context)
