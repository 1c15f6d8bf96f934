"""Measures bytes and accuracy in float32, float16 and bfloat16 on the CPU and on a GPU, for the
baseline and for ResNet-152. ResNet-152 is also timed here.
"""

import torch

from stages.lib.core import hardware, outputs, paths, records
from stages.lib.core.stage import run_stage
from stages.lib.engines import benchmark, number_formats
from stages.lib.engines.number_formats import Subject
from stages.lib.evaluation import device
from stages.lib.evaluation.context import Context
from stages.lib.evaluation.images import fixed_normalize
from stages.lib.evaluation.samples import Samples
from stages.lib.models import registry


def resnet152(size: int, count: int) -> Subject:
    """torchvision's ResNet-152 with random weights, and `count` random images of `size` pixels. It
    costs as much as a trained one.
    """
    model = registry.build_seeded(registry.architecture("resnet152", 0, 3, 1000, [size, size]), 0)
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), generator=stream, dtype=torch.uint8)
    samples = Samples(images, torch.zeros(count), fixed_normalize("half", 3, benchmark.CPU))
    number_formats.calibrate_batch_norm(model, samples.normalize(images[:8]))
    placed = device.place(model, benchmark.CPU)
    return Subject("resnet152", placed, samples, False, "random weights and images")


def main(context: Context) -> None:
    options, latencies, rows = context.params.dtype_bench, [], []
    isa = hardware.kernel_isa(hardware.read(paths.HARDWARE)["isa"])
    devices = [torch.device(name) for name in options.devices
               if name == "cpu" or torch.cuda.is_available()]  # fmt: skip
    for name in context.progress(options.networks, "network"):
        if name == "baseline":
            subject = Subject(name, context.baseline, context.data.test)
        else:
            subject = resnet152(options.resnet152_image_size, max(2, options.agreement_images))
            about = {"seed": context.seed, "method": name, "target_sparsity": 0, "weight_bits": 32}
            network = about, subject.model, subject.samples.normalize
            latencies += benchmark.measure(
                benchmark.in_torch(*network, devices, options.dtypes),
                subject.samples.images, options.batch_sizes,
                threads=context.params.compute.threads, seconds=options.seconds, isa=isa,
            )  # fmt: skip
        rows += number_formats.bench(subject, options.devices, options.dtypes, options.seconds)
    if rows:
        context.result = f"{', '.join(options.dtypes)} on {', '.join(map(str, devices))}"
    outputs.write_csv(context.directory / paths.ROWS, records.FORMAT, rows)
    outputs.write_csv(context.directory / paths.LATENCIES, records.LATENCY, latencies)


if __name__ == "__main__":
    run_stage(main, Context)
