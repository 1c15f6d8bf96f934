"""Measures the bytes and the accuracy of a network in float32, float16 and bfloat16."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stages.lib.core import errors
from stages.lib.evaluation import counting, inference
from stages.lib.evaluation.samples import Samples
from stages.lib.models import checkpoints
from stages.lib.models.modes import input_like
from stages.lib.models.origins import copied

# The number of images between two checks of the time.
BATCH = 16
# An accuracy or agreement may take this many time boxes.
QUALITY_BOXES = 60


@dataclass(frozen=True)
class Subject:
    """A network to measure.

    model: of `registry.build`.
    samples: images, with labels if the network was trained on such data; else the labels have no
        meaning, and agreement is measured instead of accuracy.
    note: of every measured row.
    """

    name: str
    model: nn.Module
    samples: Samples
    is_trained: bool = True
    note: str = ""


def cast(model: nn.Module, dtype: str, device: torch.device) -> nn.Module:
    """A copy on `device`, in evaluation mode. dtype: float32, float16, bfloat16."""
    model = copied(model).eval()
    return model.to(device, getattr(torch, dtype))


def calibrate_batch_norm(model: nn.Module, inputs: torch.Tensor) -> None:
    """Sets the batch norms of an untrained network to the statistics of `inputs`, in place.

    With their initial statistics (0 and 1), the activations of a deep residual network grow with
    every block until float16 overflows, which would say nothing about float16.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(inputs)
    model.eval()


def top1(model: nn.Module, samples: Samples, order: torch.Tensor, seconds: float) -> torch.Tensor:
    """The top-1 classes of the images in this order, int64 [m] on the CPU. Batches that begin after
    `seconds` are skipped; at least one is computed.
    """
    like, classes, end = input_like(model), [], time.perf_counter() + seconds
    with torch.no_grad():
        for batch in order.split(BATCH):
            inputs = samples.normalize(samples.images[batch]).to(like)
            classes.append(model(inputs).argmax(1).cpu())
            if time.perf_counter() > end:
                break
    return torch.cat(classes)


def quality(
    subject: Subject, order: torch.Tensor, classes: torch.Tensor, float32: torch.Tensor
) -> dict[str, float | int]:
    """The columns accuracy and agreement.

    order: of the images.
    classes, float32: the top-1 classes by a format and by float32, in this order. If time ran out
        before the last image, agreement is given beside accuracy.
    """
    columns: dict[str, float | int] = {}
    if subject.is_trained:
        labels = subject.samples.labels.cpu()[order[: len(classes)]]
        columns["accuracy"] = inference.share_correct(classes, labels)
    if not subject.is_trained or len(classes) < len(order):
        count = min(len(classes), len(float32))
        columns["agreement"] = inference.share_correct(classes[:count], float32[:count])
        columns["agreement_images"] = count
    return columns


def bench(
    subject: Subject, devices: Sequence[str], dtypes: Sequence[str], seconds: float
) -> Iterator[dict[str, Any]]:
    """Yields a line of records.FORMAT for each format and device. Without a GPU, its lines say so.

    devices: cpu, cuda. On each, float32 is computed first, even if it is not among `dtypes`,
        because agreement is with float32.
    seconds: a time box. Each accuracy and each agreement may take QUALITY_BOXES of them.
    """
    # Images from class folders are in the order of the classes: the first are all of one class.
    stream = torch.Generator().manual_seed(0)
    order = torch.randperm(len(subject.samples.images), generator=stream)
    float32: dict[str, torch.Tensor] = {}
    for dtype in ["float32", *(name for name in dtypes if name != "float32")]:
        model = cast(subject.model, dtype, torch.device("cpu"))
        line = {
            "network": subject.name,
            "image_shape": "×".join(map(str, subject.samples.images.shape[1:])),
            "dtype": dtype,
            "parameters": counting.parameters(model),
            "bytes_on_disk": checkpoints.serialized_bytes(model),
            "tensor_bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
        }
        for device in devices:
            measured: dict[str, Any] = {"note": "no CUDA device"}
            if device == "cpu" or torch.cuda.is_available():
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                try:
                    classes = top1(
                        model.to(device), subject.samples, order, QUALITY_BOXES * seconds
                    )
                    measured = quality(subject, order, classes, float32.setdefault(device, classes))
                    measured["note"] = subject.note
                except Exception as error:  # noqa: BLE001 - any network may be named
                    measured = {"note": f"cannot be run ({errors.reason(error)})"}
                if device == "cuda":
                    measured["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
            if dtype in dtypes:
                yield {**line, "device": device, **measured}
