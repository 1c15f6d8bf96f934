"""Measures bytes and accuracy in float32, float16 and bfloat16 on the CPU and on a GPU, for the
baseline and for ResNet-152. ResNet-152 is also timed here.
"""

import torch

from stages.lib.core import hardware, outputs, paths, records
from stages.lib.core.stage import run_stage
from stages.lib.engines import benchmark, number_formats
from stages.lib.engines.number_formats import Subject
from stages.lib.evaluation.context import Context
from stages.lib.evaluation.images import fixed_normalize
from stages.lib.evaluation.samples import Samples


def resnet152(image_size: int, count: int) -> Subject:
    """torchvision's ResNet-152 with random weights and images. It costs as much as a trained
    one.
    """
    from torchvision.models import resnet152 as build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(weights=None)
        images = torch.randint(0, 256, (count, 3, image_size, image_size), dtype=torch.uint8)
    samples = Samples(images, torch.zeros(count), fixed_normalize("half", 3, benchmark.CPU))
    number_formats.calibrate_batch_norm(model, samples.normalize(images[:8]))
    return Subject("resnet152", model, samples, False, "random weights and images")


def latencies(context: Context, subject: Subject) -> list[dict]:
    """Lines of records.LATENCY: the network in all number formats, timed in turns."""
    options = context.params.dtype_bench
    about = {"seed": context.seed, "method": subject.name, "target_sparsity": 0, "weight_bits": 32}
    devices = [name for name in options.devices if name == "cpu" or torch.cuda.is_available()]
    subjects = [
        benchmark.of_torch(about, subject.model, subject.samples.normalize, torch.device(name), one)
        for name in devices
        for one in options.dtypes
    ]
    isa = hardware.kernel_isa(hardware.read(paths.HARDWARE)["isa"])
    measured = benchmark.measure(
        subjects, subject.samples.images, options.batch_sizes,
        threads=context.params.compute.threads, seconds=options.seconds, isa=isa,
    )  # fmt: skip
    return list(measured)


def main(context: Context) -> None:
    options, timed, rows = context.params.dtype_bench, [], []
    for name in context.progress(options.networks, "network"):
        if name == "baseline":
            subject = Subject(name, context.baseline, context.data.test)
        else:
            subject = resnet152(options.resnet152_image_size, options.agreement_images)
            timed += latencies(context, subject)
        rows += number_formats.bench(
            subject, options.devices, options.dtypes,
            seconds=options.seconds, largest_batch=options.batch_sizes[-1],
        )  # fmt: skip
    outputs.write_csv(context.directory / paths.ROWS, records.FORMAT, rows)
    outputs.write_csv(context.directory / paths.LATENCIES, records.LATENCY, timed)


if __name__ == "__main__":
    run_stage(main, Context)
