"""Quantizes the weights linearly. Measures the error of each layer and the accuracy, and writes
files of Q, S and Z.
"""

from itertools import product

import torch

from stages.lib.core import outputs, paths, records
from stages.lib.core.errors import UserError
from stages.lib.core.stage import run_stage
from stages.lib.evaluation import device
from stages.lib.evaluation.context import Context
from stages.lib.models import prunable
from stages.lib.quantization import linear


def main(context: Context) -> None:
    baseline, options = context.baseline, context.params.int_quantize
    weights = prunable.weights(baseline)
    settings = list(product(options.schemes, options.granularities, options.bits))
    layers = []
    for scheme, granularity, bits in context.progress(settings, "width"):
        quantized = linear.quantize_weights(baseline, bits, scheme, granularity)
        setting = {"scheme": scheme, "granularity": granularity, "bits": bits}
        for name, parts in quantized.items():
            about = {"seed": context.seed, "layer": prunable.layer_of(name)}
            layers.append(about | setting | linear.layer_error(weights[name], parts)._asdict())
        method = f"{scheme}_{granularity}"
        file = paths.network_name(method, weight_bits=bits) + paths.SAFETENSORS
        size = linear.save_model(context.directory / file, baseline, quantized)
        network, stored = linear.load_model(context.directory / file, context.params.model.name)
        for name, parts in quantized.items():
            if not all(map(torch.equal, parts, stored[name])):
                raise UserError(f"{file}: {name} reads back other than it was written")
        network = device.place(network, context.device)
        measured = {"weight_bits": bits, "bytes_on_disk": size}
        if bits in options.store_bits:
            context.results.record_file(network, method, file, **measured)
        else:
            (context.directory / file).unlink()
            context.results.record(network, method, **measured)
    outputs.write_csv(context.directory / paths.QUANTIZED_LAYERS, records.QUANTIZED_LAYER, layers)


if __name__ == "__main__":
    run_stage(main, Context)
