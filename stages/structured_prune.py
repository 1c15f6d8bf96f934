"""Removes whole filters: masked first, then physically, then trained again."""

from tqdm import tqdm

from stages.lib import (
    channels,
    difference,
    masks,
    outputs,
    paths,
    records,
    removal,
    results,
    setting,
    structured,
)
from stages.lib.cli import run_stage
from stages.lib.distillation import Distillation
from stages.lib.errors import UserError
from stages.lib.recovery import recover

# Sums over fewer filters run in another order; more than this is not rounding, in float32 either.
TOLERANCE = 1e-4


def table_of(baseline, plan: structured.Plan) -> list[dict]:
    """A line for each prunable layer: what it is coupled with, and why it keeps all its filters."""
    layers = masks.layers(baseline)
    lines = []
    for parameter, weight in masks.prunable(baseline).items():
        name = masks.layer_of(parameter)
        reason = plan.refused.get(name, "") if name in layers else channels.HEADS
        lines.append(
            {
                "layer": name,
                "filters": len(weight),
                "coupled_with": " ".join(plan.coupled_with(name)),
                "prunable": "no" if reason else "yes",
                "reason": reason,
            }
        )
    return lines


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    options = params.structured_prune
    check = at.data.validation.normalize(at.data.validation.images[:16])
    try:
        plan = structured.analyse(baseline, at.data.image_shape)
        # All choices first: a sparsity that cannot be reached should not wait for the training.
        choices = [
            (
                scope,
                sparsity,
                structured.choose(baseline, plan, sparsity, scope, options.multiple_of),
            )
            for scope in options.scopes
            for sparsity in options.sparsities
        ]
    except UserError as error:
        raise UserError(
            f"structured_prune: seed {seed}: {error}"
            " (structured_prune.sparsities, .scopes, .multiple_of)"
        ) from None
    taught = Distillation(baseline, options.distillation, options.temperature)
    with results.collect(paths.stage_directory("structured_prune", seed), ruler) as kept:
        outputs.write_csv(
            kept.directory / paths.FILTERS, records.PRUNED_LAYER, table_of(baseline, plan)
        )
        for scope, sparsity, chosen in tqdm(
            choices, "structured_prune", unit="model", leave=False, disable=None
        ):
            masked = removal.mask(baseline, plan, chosen)
            small = removal.remove(baseline, plan, chosen)
            apart = difference.largest(masked, small, check)
            if apart > TOLERANCE:
                raise UserError(
                    f"structured_prune: {scope} {sparsity:g}: the small network's outputs differ"
                    f" from the masked one's by {apart:.2g} (allowed: {TOLERANCE:g})"
                )
            method = f"structured_{scope}"
            kept.keep(
                small,
                method,
                paths.model_name(method, sparsity),
                target_sparsity=sparsity,
            )
            model = recover(
                at,
                small,
                params.training,
                seed,
                "structured_prune",
                f"{scope} {sparsity:g}",
                epochs=options.epochs,
                learning_rate=options.learning_rate,
                criterion=taught if options.distillation > 0 else None,
            )
            kept.keep(
                model,
                f"{method}_finetune",
                paths.model_name(f"{method}_finetune", sparsity),
                target_sparsity=sparsity,
                extra_epochs=options.epochs,
            )


if __name__ == "__main__":
    run_stage(
        main,
        reads=["compute", "model", "training", "structured_prune"],
        per_seed=True,
    )
