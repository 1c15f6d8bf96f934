"""Controls for the methods: pruning by other criteria, such as random; other networks fine-tuned as
the stage finetune does; one-shot pruning and the baseline with as many epochs as iterative pruning.
"""

from collections.abc import Iterator
from importlib import import_module

from stages.lib.arms.running import Arm, run_arms, trained
from stages.lib.core import methods
from stages.lib.core.methods import METHODS, Method
from stages.lib.core.params import ALL
from stages.lib.pruning import criteria, schedule


def chosen(context, method: Method, sparsities: list[float]) -> Iterator[dict]:
    """The masks for each sparsity by a method's criterion and scope; no masks if it has none."""
    from stages.lib.pruning import masks

    if not method.criterion:
        yield from ({} for _ in sparsities)
        return
    scores = import_module(f"{criteria.__name__}.{method.criterion}").scores(
        context.baseline, context.data.train, context.generator(method.criterion)
    )
    for sparsity in sparsities:
        yield masks.SCOPES[method.scope](scores, sparsity)


def pruned(context, name: str) -> None:
    """Measures the networks of a method that prunes only."""
    from stages.lib.pruning import masks

    sparsities = context.params.sparsities
    for sparsity, mask in zip(sparsities, chosen(context, METHODS[name], sparsities), strict=True):
        network = masks.masked(context.baseline, mask)
        context.results.record(network, name, target_sparsity=sparsity)


def recovered(
    context, name: str, by: str, sparsity: float, epochs: int, learning_rate: float, saved: bool
) -> None:
    """Trains and measures a network.

    by: the method that chooses its weights.
    saved: whether its file is kept.
    """
    from stages.lib.training.recovery import recover

    (mask,) = chosen(context, METHODS[by], [sparsity])
    network = recover(
        context,
        context.baseline,
        f"{name} {sparsity:g}",
        epochs=epochs,
        learning_rate=learning_rate,
        masks=mask,
    )
    measure = context.results.save if saved else context.results.record
    measure(network, name, target_sparsity=sparsity, extra_epochs=epochs)


def training(name: str, by: str, sparsity: float, *options) -> Arm:
    arguments = (name, by, sparsity, *options)
    return Arm(f"{name} {sparsity:g}", recovered, arguments, trained(name, [sparsity]))


def finetuned(params) -> Iterator[Arm]:
    """The arms that are fine-tuned for as long as globally pruned networks are."""
    epochs, rate = params.finetune.epochs, params.finetune.learning_rate
    for name in params.controls.finetuned:
        method = methods.finetuned_by_controls()[name].name
        for sparsity in params.sparsities if METHODS[name].criterion else [0.0]:
            yield training(method, name, sparsity, epochs, rate, False)


def equal_budget(params) -> Iterator[Arm]:
    """The arms that are trained for as many epochs as iterative pruning at the same sparsity."""
    iterative, asked = params.iterative_prune, params.controls.equal_budget
    if not params.sparsities:  # no iterative pruning
        return
    steps = schedule.sparsities(iterative.step, iterative.target, params.sparsities)
    spent = {
        sparsity: iterative.epochs_per_step * number for number, sparsity in enumerate(steps, 1)
    }
    if asked == ALL:
        asked = [sparsity for sparsity in params.sparsities if round(sparsity, 6) in spent]
    rate = iterative.learning_rate
    yield training("baseline_long", "baseline", 0.0, spent[steps[-1]], rate, True)
    for sparsity in asked:
        epochs = spent[round(sparsity, 6)]
        yield training("finetune_long", "global", sparsity, epochs, rate, True)


def arms(params) -> list[Arm]:
    pruning = [
        Arm(method.name, pruned, (method.name,))
        for method in methods.of_stage("controls")
        if method.criterion
    ]
    return [*pruning, *finetuned(params), *equal_budget(params)]


if __name__ == "__main__":
    run_arms(arms)
