"""The claims about accuracy, the course's and ours, stated before anything is measured."""

from stages.lib.analysis import statistics
from stages.lib.analysis.claims import Claim
from stages.lib.analysis.evidence import Arm, Arms, Evidence
from stages.lib.core import methods


def _undamaged(after: Arm, before: Arm, evidence: Evidence, arms: Arms) -> str:
    """Why a pair says nothing about recovery: pruning did not surely damage the network. Networks
    at chance level count, because recovery may start from nothing.
    """
    baseline = arms["baseline", 0.0].correct
    loss = statistics.difference(baseline, before.correct, evidence.confidence)
    return "" if loss.low > 0 else "pruning damaged nothing beyond doubt, nothing to recover"


def _other_budget(one: Arm, other: Arm, evidence: Evidence, arms: Arms) -> str:
    if one.epochs == other.epochs:
        return ""
    return f"not the same budget: {one.epochs} and {other.epochs} epochs"


# In the order of the course. Claims without a published result are ours: the course's claims assume
# them without saying so.
CLAIMS = (
    Claim(
        "global_over_layerwise",
        "Global pruning preserves accuracy better than layer by layer",
        (("global", "uniform"),),
        "better, 0–80 %",
    ),
    Claim(
        "recovery",
        "Fine-tuning recovers accuracy for all pruned models",
        tuple((after.name, before.name) for before, after in methods.recoveries()),
        "significant recovery, 5 epochs",
        why_not=_undamaged,
        each=True,
    ),
    Claim(
        "iterative_best",
        "Iterative pruning is the most effective method",
        (("iterative", "uniform", "global", "finetune"),),
        "best, 3 epochs a step to 80 %",
    ),
    Claim(
        "iterative_best_at_equal_budget",
        "Iterative pruning beats one-shot pruning that trains for as many epochs",
        (("iterative", "finetune_long"),),
        "best, but it had trained for more epochs than the others",
        why_not=_other_budget,
    ),
    Claim(
        "unstructured_over_structured",
        "Unstructured pruning preserves accuracy much better than structured, as pruned",
        (("global", "structured_layer"), ("global", "structured_global")),
        "much better",
    ),
    Claim(
        "unstructured_over_structured_finetuned",
        "Unstructured pruning keeps more accuracy than structured after fine-tuning too",
        (("finetune", "structured_layer_finetune"), ("finetune", "structured_global_finetune")),
        "much better",
    ),
    Claim(
        "magnitude_over_random",
        "Removing the smallest weights is better than removing weights at random",
        (("global", "random_global"), ("uniform", "random_uniform")),
    ),
    Claim(
        "magnitude_over_random_finetuned",
        "The smallest weights are the better choice after fine-tuning too",
        (("finetune", "random_global_finetune"),),
    ),
    Claim(
        "global_over_layerwise_finetuned",
        "Global pruning is better than layer by layer after fine-tuning too",
        (("finetune", "uniform_finetune"),),
    ),
    Claim(
        "pruned_over_dense",
        "Pruned and fine-tuned, a network is more accurate than the baseline, fine-tuned alike",
        (("finetune", "baseline_finetune"),),
    ),
)
