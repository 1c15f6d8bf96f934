"""Packs the network smaller and smaller: pruned, quantized and trained for it, under a budget of
bytes; each of the two alone beside it.
"""

from tqdm import tqdm

from stages.lib import device, packed, paths, results, setting, size_targets
from stages.lib.cli import run_stage


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    arms = size_targets.arms(params.compress.arms, params.compress.bits)
    with results.collect(paths.stage_directory("compress", seed), ruler) as kept:
        for arm in tqdm(arms, "compress", unit="arm", leave=False, disable=None):
            found = size_targets.sizes(at, seed, params.compress, params.training, arm, baseline)
            for factor, epochs, network in found:
                name = paths.packed_name(arm.method, factor)
                size = packed.save(kept.directory / name, network.model, network.quantized)
                # What is measured is what the file says.
                model, _ = packed.load(kept.directory / name)
                kept.keep_saved(
                    device.place(model, at.device),
                    arm.method,
                    name,
                    times_smaller=factor,
                    # The most that a layer may have: the same for every seed.
                    weight_bits=max(arm.bits),
                    extra_epochs=epochs,
                    bytes_on_disk=size,
                )


if __name__ == "__main__":
    run_stage(main, reads=["compute", "model", "training", "compress"], per_seed=True)
