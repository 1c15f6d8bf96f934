"""Times the baseline and ResNet-152 in float32, float16 and bfloat16, on the CPU and on a GPU."""

from dataclasses import asdict

import torch
from tqdm import tqdm

from stages.lib import formats, outputs, paths, records, setting
from stages.lib.cli import run_stage
from stages.lib.formats import Subject
from stages.lib.setting import Setting


def baseline(at: Setting, seed: int, count: int) -> Subject:
    """The trained network, timed on the first `count` test images, repeated if there are fewer."""
    model, _ = setting.load_baseline(at, paths.baseline(seed), seed)
    images = at.data.test.images
    inputs = at.data.test.normalize(images[torch.arange(count) % len(images)]).cpu()
    return Subject("baseline", model, inputs, at.data.test)


def resnet152(image_size: int, count: int) -> Subject:
    """torchvision's ResNet-152 with random weights: its cost is that of the trained one, and its
    agreement is measured on random images.
    """
    from torchvision.models import resnet152 as build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(weights=None)
        inputs = torch.randn(count, 3, image_size, image_size)
    formats.calibrate_batch_norm(model, inputs[:8])
    return Subject("resnet152", model, inputs, None, "random weights and images")


def main(params, seed: int) -> None:
    at = setting.load(params.compute, params.model, paths.PREPARED)
    options = params.dtype_bench
    count = max(*options.batch_sizes, options.agreement_images, 2)
    rows = []
    for network in options.networks:
        if network == "baseline":
            subject = baseline(at, seed, count)
        else:
            subject = resnet152(options.resnet152_image_size, count)
        settings = len(options.devices) * len(options.dtypes) * len(options.batch_sizes)
        rows += tqdm(
            formats.bench(
                subject,
                options.devices,
                options.dtypes,
                options.batch_sizes,
                threads=params.compute.threads,
                seconds=options.seconds,
                agreement_images=options.agreement_images,
            ),
            f"dtype_bench {network}",
            total=settings,
            leave=False,
            disable=None,
        )
    with outputs.whole_directory(paths.stage_directory("dtype_bench")) as directory:
        outputs.write_csv(directory / paths.ROWS, records.FORMAT, map(asdict, rows))


if __name__ == "__main__":
    run_stage(main, reads=["compute", "model", "dtype_bench"], per_seed=True)
