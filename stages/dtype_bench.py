"""Times the baseline and ResNet-152 in float32, float16 and bfloat16, on the CPU and on a GPU."""

from dataclasses import asdict

import torch

from stages.lib.core import outputs, paths, records
from stages.lib.core.stage import run_stage
from stages.lib.engines import number_formats
from stages.lib.engines.number_formats import Subject
from stages.lib.evaluation.context import Context


def baseline(context: Context, count: int) -> Subject:
    """The trained network, on the first `count` test images, repeated if there are fewer."""
    test = context.data.test
    inputs = test.normalize(test.images[torch.arange(count) % len(test.images)]).cpu()
    return Subject("baseline", context.baseline, inputs, test)


def resnet152(image_size: int, count: int) -> Subject:
    """torchvision's ResNet-152 with random weights: its cost is that of the trained one, and its
    agreement is measured on random images.
    """
    from torchvision.models import resnet152 as build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(weights=None)
        inputs = torch.randn(count, 3, image_size, image_size)
    number_formats.calibrate_batch_norm(model, inputs[:8])
    return Subject("resnet152", model, inputs, None, "random weights and images")


def main(context: Context) -> None:
    options = context.params.dtype_bench
    count = max(*options.batch_sizes, options.agreement_images, 2)
    rows = []
    for network in context.progress(options.networks, "network"):
        if network == "baseline":
            subject = baseline(context, count)
        else:
            subject = resnet152(options.resnet152_image_size, count)
        rows += number_formats.bench(
            subject,
            options.devices,
            options.dtypes,
            options.batch_sizes,
            threads=context.params.compute.threads,
            seconds=options.seconds,
            agreement_images=options.agreement_images,
        )
    outputs.write_csv(context.directory / paths.ROWS, records.FORMAT, map(asdict, rows))


if __name__ == "__main__":
    run_stage(main, Context)
