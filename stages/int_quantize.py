"""Quantizes the weights by hand: error of each layer, accuracy of the whole, files of Q, S and
Z.
"""

from itertools import product

import torch
from tqdm import tqdm

from stages.lib import device, masks, outputs, paths, quantization, records, results, setting
from stages.lib.cli import run_stage
from stages.lib.errors import UserError


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    baseline, ruler = setting.load_baseline(at, paths.baseline(seed), seed)
    weights = masks.prunable(baseline)
    options = params.int_quantize
    settings = list(product(options.schemes, options.granularities, options.bits))
    layers = []
    with results.collect(paths.stage_directory("int_quantize", seed), ruler) as kept:
        for scheme, granularity, bits in tqdm(
            settings, "int_quantize", unit="width", leave=False, disable=None
        ):
            quantized = quantization.quantize_weights(baseline, bits, scheme, granularity)
            for name, parts in quantized.items():
                error = quantization.layer_error(weights[name], parts)
                layers.append(
                    {
                        "seed": seed,
                        "layer": masks.layer_of(name),
                        "scheme": scheme,
                        "granularity": granularity,
                        "bits": bits,
                        **error._asdict(),
                    }
                )
            method = f"{scheme}_{granularity}"
            name = paths.quantized_name(method, bits)
            file = kept.directory / name
            size = quantization.save_model(file, baseline, quantized)
            model, stored = quantization.load_model(file)
            for weight, parts in quantized.items():
                if not all(map(torch.equal, parts, stored[weight])):
                    raise UserError(f"{file}: {weight} reads back other than it was written")
            about = {"weight_bits": bits, "bytes_on_disk": size}
            if bits in options.store_bits:
                kept.keep_saved(device.place(model, at.device), method, name, **about)
            else:
                file.unlink()
                kept.note(device.place(model, at.device), method, **about)
        outputs.write_csv(kept.directory / paths.QUANTIZED_LAYERS, records.QUANTIZED_LAYER, layers)


if __name__ == "__main__":
    run_stage(main, reads=["compute", "model", "int_quantize"], per_seed=True)
