"""Quantizes the weights linearly. Measures the error of each layer and the accuracy, and writes
files of Q, S and Z.
"""

from itertools import product

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import outputs, paths, records
from stages.lib.core.errors import UserError


def quantized(context) -> None:
    import torch

    from stages.lib.models import prunable
    from stages.lib.quantization import linear

    baseline, options = context.baseline, context.params.int_quantize
    weights = prunable.weights(baseline)
    settings = list(product(options.schemes, options.granularities, options.bits))
    layers = []
    for scheme, granularity, bits in context.progress(settings, "width"):
        codes = linear.quantize_weights(baseline, bits, scheme, granularity)
        setting = {"scheme": scheme, "granularity": granularity, "bits": bits}
        for name, parts in codes.items():
            about = {"seed": context.seed, "layer": prunable.layer_of(name)}
            layers.append(about | setting | linear.layer_error(weights[name], parts)._asdict())
        method = f"{scheme}_{granularity}"
        file = paths.network_name(method, weight_bits=bits) + paths.SAFETENSORS
        size = linear.save_model(context.directory / file, baseline, codes)
        network, stored = linear.load_model(context.directory / file, context.params.model.name)
        for name, parts in codes.items():
            if not all(map(torch.equal, parts, stored[name])):
                raise UserError(f"{file}: {name} reads back other than it was written")
        network = context.place(network)
        measured = {"weight_bits": bits, "bytes_on_disk": size}
        if bits in options.store_bits:
            context.results.record_file(network, method, file, **measured)
        else:
            (context.directory / file).unlink()
            context.results.record(network, method, **measured)
    outputs.write_csv(context.directory / paths.QUANTIZED_LAYERS, records.QUANTIZED_LAYER, layers)


def arms(params) -> list[Arm]:
    return [Arm("all widths", quantized)]


if __name__ == "__main__":
    run_arms(arms)
