"""Removes whole filters: masked first, then physically, then trained again."""

from tqdm import tqdm

from stages.lib import device, paths, results, setting, structured, training
from stages.lib.cli import run_stage
from stages.lib.errors import UserError

# Float32 sums over fewer filters run in another order; more than this is not rounding.
TOLERANCE = 1e-4


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    options = params.structured_prune
    shape = at.data.image_shape
    check = at.data.validation.normalize(at.data.validation.images[:64])
    settings = [(scope, sparsity) for scope in options.scopes for sparsity in options.sparsities]
    with results.collect(paths.stage_directory("structured_prune", seed), ruler) as kept:
        for scope, sparsity in tqdm(
            settings, "structured_prune", unit="model", leave=False, disable=None
        ):
            try:
                filters = structured.choose_filters(baseline, sparsity, scope, shape)
            except UserError as error:
                raise UserError(f"structured_prune: seed {seed}: {error}") from None
            masked = structured.mask_filters(baseline, filters, shape)
            small = structured.remove_filters(baseline, filters, shape)
            difference = structured.largest_difference(masked, small, check)
            if difference > TOLERANCE:
                raise UserError(
                    f"structured_prune: {scope} {sparsity:g}: the small network's outputs differ"
                    f" from the masked one's by {difference:.2g} (allowed: {TOLERANCE:g})"
                )
            method = f"structured_{scope}"
            kept.keep(
                small,
                method,
                paths.model_name(method, sparsity),
                target_sparsity=sparsity,
            )
            model, _ = training.fit(
                small,
                at.data,
                params.training,
                epochs=options.epochs,
                learning_rate=options.learning_rate,
                precision=at.precision,
                generator=device.generator(seed, f"structured_prune {scope} {sparsity:g}"),
                label="structured_prune",
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
