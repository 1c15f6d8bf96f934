"""Number formats (float32, float16, bfloat16) on a device: what a network costs in each, in bytes
and in accuracy.
"""

import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from stages.lib.core import paths
from stages.lib.evaluation import counting, inference
from stages.lib.evaluation.samples import Samples

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# Images between two looks at the clock.
BATCH = 16
# Accuracy or agreement is worth more time than one latency.
QUALITY_BOXES = 60


@dataclass(frozen=True)
class Subject:
    """A network to bench.

    samples: images, and their labels where the network was trained on such; else labels are of no
        meaning and agreement is measured instead of accuracy.
    note: of every row that was measured.
    """

    name: str
    model: nn.Module
    samples: Samples
    is_trained: bool = True
    note: str = ""


def cast(model: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """A copy in `dtype` on `device`, channels-last, in evaluation mode."""
    return (
        copy.deepcopy(model)
        .to(device=device, dtype=dtype, memory_format=torch.channels_last)
        .eval()
    )


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of all weights and buffers, without a file's header."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def bytes_on_disk(model: nn.Module) -> int:
    """Size of the network's safetensors file, written to a temporary folder and measured there."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / paths.MODEL
        save_file(tensors, file)
        return file.stat().st_size


def calibrate_batch_norm(model: nn.Module, inputs: torch.Tensor) -> None:
    """Sets the batch norms of an untrained network to the statistics of `inputs`, in place.

    With their initial statistics (0 and 1), a deep residual network's activations grow with every
    block until float16 overflows, which says nothing about float16.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(inputs)
    model.eval()


def top1(model: nn.Module, samples: Samples, order: torch.Tensor, seconds: float) -> torch.Tensor:
    """Top-1 classes, int64 [m] on the CPU, of the images in that order: of as many batches as begin
    within `seconds`, one at least.
    """
    first, classes, end = next(model.parameters()), [], time.perf_counter() + seconds
    with torch.inference_mode():
        for batch in order.split(BATCH):
            inputs = samples.normalize(samples.images[batch]).to(first)
            classes.append(model(inputs).argmax(1).cpu())
            if time.perf_counter() > end:
                break
    return torch.cat(classes)


def agreement(one: torch.Tensor, other: torch.Tensor) -> tuple[float, int]:
    """Share of equal classes over the inputs that both have, and how many those are."""
    count = min(len(one), len(other))
    return float((one[:count] == other[:count]).double().mean()), count


def _quality(
    subject: Subject, classes: torch.Tensor, float32: torch.Tensor, order: torch.Tensor
) -> dict[str, float | int]:
    """The columns accuracy and agreement, of the classes that a format and float32 give the images
    in that order. Agreement stands beside an accuracy where time ran out before the last image.
    """
    columns: dict[str, float | int] = {}
    if subject.is_trained:
        labels = subject.samples.labels.cpu()[order[: len(classes)]]
        columns["accuracy"] = inference.share_correct(classes, labels)
    if not subject.is_trained or len(classes) < len(order):
        columns["agreement"], columns["agreement_images"] = agreement(float32, classes)
    return columns


def _peak_memory(model: nn.Module, subject: Subject, batch: int) -> int:
    """Bytes of a GPU's memory that a call takes."""
    first = next(model.parameters())
    images = subject.samples.images
    inputs = subject.samples.normalize(images[torch.arange(batch) % len(images)]).to(first)
    torch.cuda.reset_peak_memory_stats(first.device)
    with torch.inference_mode():
        model(inputs)
    return torch.cuda.max_memory_allocated(first.device)


def bench(
    subject: Subject,
    devices: Sequence[str],
    dtypes: Sequence[str],
    *,
    seconds: float,
    largest_batch: int,
) -> Iterator[dict[str, Any]]:
    """Lines of records.FORMAT, one per format and device; those without a GPU say so.

    devices: cpu, cuda. dtypes: names of DTYPES. On each device float32 comes first, whether or not
        it is among them: agreement is with it.
    seconds: a time box; each accuracy and each agreement may take QUALITY_BOXES of them.
    largest_batch: of which the peak of a GPU's memory is taken.
    """
    # Class folders come in the order of the classes: the first images are all of one.
    stream = torch.Generator().manual_seed(0)
    order = torch.randperm(len(subject.samples.images), generator=stream)
    float32: dict[str, torch.Tensor] = {}
    for dtype in ["float32", *(name for name in dtypes if name != "float32")]:
        on_cpu = cast(subject.model, DTYPES[dtype], torch.device("cpu"))
        line = {
            "network": subject.name,
            "image_shape": "×".join(map(str, subject.samples.images.shape[1:])),
            "dtype": dtype,
            "parameters": counting.parameters(on_cpu),
            "bytes_on_disk": bytes_on_disk(on_cpu),
            "tensor_bytes": tensor_bytes(on_cpu),
        }
        for device in devices:
            if device == "cuda" and not torch.cuda.is_available():
                measured = {"note": "no CUDA device"}
            else:
                model = on_cpu.to(device)
                classes = top1(model, subject.samples, order, QUALITY_BOXES * seconds)
                float32.setdefault(device, classes)
                measured = _quality(subject, classes, float32[device], order)
                measured["note"] = subject.note
                if device == "cuda":
                    measured["peak_memory_bytes"] = _peak_memory(model, subject, largest_batch)
            if dtype in dtypes:
                yield {**line, "device": device, **measured}
