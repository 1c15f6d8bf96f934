"""The claims about accuracy, the course's and ours, stated before anything is measured."""

from collections.abc import Sequence

from stages.lib.analysis import claims, statistics, tables
from stages.lib.analysis import evidence as fair
from stages.lib.analysis.claims import JUDGED, Claim
from stages.lib.analysis.evidence import Arms, Comparison, Evidence
from stages.lib.analysis.verdicts import (
    CONTRADICTED,
    NOT_MEASURED,
    UNDECIDED,
    Finding,
    Hypothesis,
    weigh,
)

# A pruned network, and the same after training.
RECOVERIES = (
    ("global", "finetune"),
    ("uniform", "uniform_finetune"),
    ("structured_layer", "structured_layer_finetune"),
    ("structured_global", "structured_global_finetune"),
)
RECOVERY = Hypothesis(
    "recovery",
    "Fine-tuning recovers accuracy for all pruned models",
    "significant recovery, 5 epochs",
    "Each pruned network before and after fine-tuning; damaged are those whose loss by pruning has"
    " its whole interval above zero. Reproduced if the mean gain of the damaged ones has too, each"
    " of them gained and is better than chance afterwards, and no network is worse; contradicted if"
    " one is worse, or the mean gain lies below zero; else undecided.",
)


def recovery(evidence: Evidence, arms: Arms) -> Finding:
    """Judges RECOVERY. Networks at chance level count, because recovery may start from nothing."""
    unlearned = fair.unlearned(evidence, arms)
    if unlearned:
        return RECOVERY.found(NOT_MEASURED, unlearned)
    candidates = [
        (arms[after, target], arms[before, target])
        for before, after in RECOVERIES
        for target in fair.shared(arms, before, after)
    ]
    pairs, left_out = claims.sifted(candidates, lambda one, other: "")
    absent = claims.not_run([name for pair in RECOVERIES for name in pair], arms)
    if not pairs:
        return claims.nothing(RECOVERY, left_out, absent)
    gains = fair.compare(pairs, evidence.confidence)
    dense = arms["baseline", 0.0].correct
    losses = [
        statistics.difference(dense, before.correct, gain.difference.confidence)
        for gain, (_, before) in zip(gains, pairs, strict=True)
    ]
    hurt = [
        (gain, pair) for gain, loss, pair in zip(gains, losses, pairs, strict=True) if loss.low > 0
    ]
    damaged = [gain for gain, _ in hurt]
    worse = [gain for gain in gains if gain.outcome == "worse"]
    gained = [
        gain
        for gain, (after, _) in hurt
        if gain.difference.estimate > 0 and not fair.at_chance(evidence, after)
    ]
    average = fair.on_average([pair for _, pair in hurt], evidence.confidence) if hurt else None
    epochs = " or ".join(
        tables.times(number, "epoch") for number in sorted({gain.one_epochs for gain in gains})
    )
    here = (
        f"{len(damaged)} of {len(gains)} networks were damaged, {len(gained)} of those gained"
        f" and are better than chance after {epochs} of fine-tuning",
        *claims.shown(damaged or gains, evidence.sparsity),
        claims.basis(gains, evidence.confidence),
        *claims.omissions(left_out),
        *absent,
    )
    numbers = (
        *(
            gain.numbers() | {"loss": loss.estimate, "damaged": loss.low > 0}
            for gain, loss in zip(gains, losses, strict=True)
        ),
        *(vars(one) for one in left_out),
    )
    text = claims.averaged(average, len(damaged), "damaged networks") if average else ""
    if worse:
        verdict, why = CONTRADICTED, f"worse afterwards at {claims.places(worse)}"
    elif not damaged:
        verdict, why = NOT_MEASURED, "pruning damaged no network beyond doubt: nothing to recover"
    elif len(gained) < len(damaged):
        doubtful = [gain for gain in damaged if gain not in gained]
        verdict, why = UNDECIDED, f"{text}, but no recovery at {claims.places(doubtful)}"
    else:
        verdict = weigh(average.low > 0, average.high < 0)
        why = text
    return RECOVERY.found(verdict, why, here, numbers, average)


def _costs(_: Arms, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """The epochs of iterative pruning and of its rival at the last sparsity."""
    last = max(comparisons, key=lambda one: one.sparsity)
    equal = last.one_epochs == last.other_epochs
    return (
        f"at {'' if equal else 'un'}equal cost: by {tables.percent(last.sparsity)} iterative has"
        f" trained {tables.times(last.one_epochs, 'epoch')}, {fair.name(last.other)}"
        f" {last.other_epochs}",
    )


def _budgets(arms: Arms, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """The equal numbers of epochs, and what they do for the baseline."""
    spent = ", ".join(f"{one.one_epochs} at {tables.percent(one.sparsity)}" for one in comparisons)
    notes = [f"equal budgets: both have trained as many epochs after the baseline ({spent})"]
    dense, longer = arms.get(("baseline", 0.0)), arms.get(("baseline_long", 0.0))
    if dense and longer and not longer.problem:
        notes.append(
            f"reference: the dense network, given {longer.epochs} more epochs, goes from"
            f" {100 * dense.accuracy:.1f} % to {100 * longer.accuracy:.1f} %"
        )
    return tuple(notes)


GLOBAL_OVER_LAYERWISE = Claim(
    Hypothesis(
        "global_over_layerwise",
        "Global pruning preserves accuracy better than layer by layer",
        "better, 0–80 %",
        "Global against uniform pruning, as pruned, at equal sparsity of the whole network."
        f" {JUDGED}",
    ),
    (("global", ("uniform",)),),
)
ITERATIVE_BEST = Claim(
    Hypothesis(
        "iterative_best",
        "Iterative pruning is the most effective method",
        "best, 3 epochs a step to 80 %",
        "As published, at unequal cost: iterative pruning against the best (on validation) of"
        f" uniform, global, and global + fine-tuning. {JUDGED}",
    ),
    (("iterative", ("uniform", "global", "finetune")),),
    notes=_costs,
)
ITERATIVE_BEST_AT_EQUAL_BUDGET = Claim(
    Hypothesis(
        "iterative_best_at_equal_budget",
        "Iterative pruning beats one-shot pruning that trains for as many epochs",
        "best, but it had trained for more epochs than the others",
        "Iterative pruning against one-shot global pruning trained for exactly as many epochs as"
        f" iterative pruning had spent when it reached that sparsity. {JUDGED}",
    ),
    (("iterative", ("finetune_long",)),),
    equal_epochs=True,
    notes=_budgets,
)
UNSTRUCTURED_OVER_STRUCTURED = Claim(
    Hypothesis(
        "unstructured_over_structured",
        "Unstructured pruning preserves accuracy much better than structured, as pruned",
        "much better",
        "Global pruning of single weights against whole filters in every scope, as pruned, at equal"
        f" sparsity. {JUDGED}",
    ),
    (("global", ("structured_layer",)), ("global", ("structured_global",))),
)
UNSTRUCTURED_OVER_STRUCTURED_FINETUNED = Claim(
    Hypothesis(
        "unstructured_over_structured_finetuned",
        "Unstructured pruning keeps more accuracy than structured after fine-tuning too",
        "much better",
        "Global pruning of single weights against whole filters in every scope, each fine-tuned, at"
        f" equal sparsity. {JUDGED}",
    ),
    (
        ("finetune", ("structured_layer_finetune",)),
        ("finetune", ("structured_global_finetune",)),
    ),
)

# Ours: what the course's claims assume without saying so.
MAGNITUDE_OVER_RANDOM = Claim(
    Hypothesis(
        "magnitude_over_random",
        "Removing the smallest weights is better than removing weights at random",
        "",
        "Magnitude against random choice, global and uniform, as pruned, at equal sparsity."
        f" {JUDGED}",
    ),
    (("global", ("random_global",)), ("uniform", ("random_uniform",))),
)
MAGNITUDE_OVER_RANDOM_FINETUNED = Claim(
    Hypothesis(
        "magnitude_over_random_finetuned",
        "The smallest weights are the better choice after fine-tuning too",
        "",
        f"Global magnitude against global random choice, both fine-tuned alike. {JUDGED}",
    ),
    (("finetune", ("random_global_finetune",)),),
)
GLOBAL_OVER_LAYERWISE_FINETUNED = Claim(
    Hypothesis(
        "global_over_layerwise_finetuned",
        "Global pruning is better than layer by layer after fine-tuning too",
        "",
        f"Global against uniform pruning, both fine-tuned alike. {JUDGED}",
    ),
    (("finetune", ("uniform_finetune",)),),
)
PRUNED_OVER_DENSE = Claim(
    Hypothesis(
        "pruned_over_dense",
        "Pruned and fine-tuned, a network is more accurate than the dense one, fine-tuned alike",
        "",
        "Global pruning with fine-tuning against the dense network given the same fine-tuning."
        f" {JUDGED}",
    ),
    (("finetune", ("baseline_finetune",)),),
)
