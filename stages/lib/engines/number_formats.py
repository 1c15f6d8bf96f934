"""Number formats (float32, float16, bfloat16) on a device: what a network costs in each."""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from stages.lib.core import paths
from stages.lib.engines import latency
from stages.lib.evaluation import counting, inference
from stages.lib.evaluation.inference import Samples

# What an image costs in a batch, as a share of what it costs alone. Measured for ResNet-152 in
# float32 on two cores, batch 64: 0.3 at 64 pixels, 2.0 at 224. The guess need not be closer.
BATCHING_GAIN = 0.5

# Accuracy on labelled test images is worth more time than one latency.
LABELLED_BOXES = 60

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class FormatRow:
    """One line of the bench. What could not be measured is None, and `note` says why.

    accuracy: on the test images, where the network was trained; else None. agreement: share of
    `agreement_images` inputs whose top-1 class is float32's on the same device; given beside an
    accuracy, the accuracy is of that many images alone. Latencies in
    milliseconds for the whole batch; runs: calls timed; peak_memory_bytes: on a GPU, of the
    largest call.
    """

    network: str
    image_shape: str
    device: str
    dtype: str
    batch_size: int
    parameters: int
    bytes_on_disk: int
    tensor_bytes: int
    threads: int
    accuracy: float | None = None
    agreement: float | None = None
    agreement_images: int | None = None
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None
    runs: int = 0
    peak_memory_bytes: int | None = None
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


def parts_of(count: int, batch_size: int) -> list[slice]:
    """Two single inputs, then batches: the second one's time tells how many more fit into a time
    box, the first one's is still that of a cold start.
    """
    starts = [0, 1, *range(2, count, batch_size)][:count]
    return [slice(start, end) for start, end in pairwise([*starts, count])]


def top1(model: nn.Module, parts: Iterable[torch.Tensor], seconds: float) -> torch.Tensor:
    """Top-1 classes, int64 [m] on the CPU, of as many leading parts as fit into `seconds` (at
    least one).

    parts: float [n, c, h, w] each, of `parts_of`, on the model's device and in its dtype.
    """
    classes: list[torch.Tensor] = []
    left, per_image = seconds, 0.0
    with torch.inference_mode():
        for index, part in enumerate(parts):
            if index and per_image * BATCHING_GAIN * len(part) > left:
                break
            spent = latency.seconds_of_one(
                lambda part=part: classes.append(model(part).argmax(1).cpu()), part.device
            )
            if index:
                left -= spent
                per_image = spent / len(part)
            elif spent > latency.MOST_BOXES * seconds:
                break
    return torch.cat(classes)


def agreement(one: torch.Tensor, other: torch.Tensor) -> tuple[float, int]:
    """Share of equal classes over the inputs that both have, and how many those are."""
    count = min(len(one), len(other))
    return float((one[:count] == other[:count]).double().mean()), count


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


@dataclass(frozen=True)
class Timing:
    """latency in seconds (None where it was not measured), peak memory in bytes (GPU), and why
    not.
    """

    latency: latency.Latency | None
    peak_memory: int | None
    note: str


def timed(
    model: nn.Module,
    batch: torch.Tensor,
    *,
    threads: int,
    seconds: float,
    per_image: float | None,
) -> Timing:
    """Times forward passes of `batch`, float [n, c, h, w], within about `seconds`.

    per_image: seconds for one image, known from a smaller batch. A call that this says
    takes longer than MOST_BOXES boxes is not started: the note gives the guess instead.
    """
    expected = per_image * len(batch) * BATCHING_GAIN if per_image else 0.0
    if expected > latency.MOST_BOXES * seconds:
        return Timing(
            None,
            None,
            f"not run: one call would take about {expected:.0f} s, the time box is {seconds:g} s",
        )
    device = batch.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        found = latency.measure(
            lambda: model(batch), device=device, threads=threads, seconds=seconds
        )
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    note = "one call fills the time box: no spread" if found.runs == 1 else ""
    return Timing(found, peak, note)


@dataclass(frozen=True)
class Subject:
    """A network to bench. inputs: float32 [n, c, h, w] on the CPU, at least as many as the largest
    batch; samples: labelled test images, where the network was trained on such.
    """

    name: str
    model: nn.Module
    inputs: torch.Tensor
    samples: Samples | None
    note: str = ""


def _quality(
    subject: Subject, model: nn.Module, reference: torch.Tensor | None, seconds: float, count: int
) -> tuple[dict[str, float | int], torch.Tensor]:
    """The quality columns of a network in one format, and its top-1 classes.

    With labels: the accuracy on all test images, or where that takes more than LABELLED_BOXES
    boxes, on as many of a fixed random order as fit, with their agreement beside it.
    """
    first = next(model.parameters())
    samples = subject.samples
    if samples is None:
        parts = (subject.inputs[:count][part].to(first) for part in parts_of(count, 8))
        classes = top1(model, parts, seconds)
        share, compared = agreement(classes if reference is None else reference, classes)
        return {"agreement": share, "agreement_images": compared}, classes
    total = len(samples.labels)
    # Class folders come in the order of the classes: the first images are all of one.
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    parts = (samples.normalize(samples.images[order[part]]).to(first) for part in
             parts_of(total, samples.batch_size))  # fmt: skip
    classes = top1(model, parts, LABELLED_BOXES * seconds)
    correct = inference.share_correct(classes, samples.labels.cpu()[order[: len(classes)]])
    found: dict[str, float | int] = {"accuracy": correct}
    if len(classes) < total:
        share, compared = agreement(classes if reference is None else reference, classes)
        found |= {"agreement": share, "agreement_images": compared}
    return found, classes


def bench(
    subject: Subject,
    devices: Sequence[str],
    dtypes: Sequence[str],
    batch_sizes: Sequence[int],
    *,
    threads: int,
    seconds: float,
    agreement_images: int,
) -> Iterator[FormatRow]:
    """One row per format, device and batch size, about `seconds` for each latency and each
    agreement.

    On each device float32 comes first, whether or not it is in `dtypes`: agreement is with it.
    """
    reference: dict[str, torch.Tensor] = {}
    for dtype_name in ["float32", *(name for name in dtypes if name != "float32")]:
        dtype = DTYPES[dtype_name]
        on_cpu = cast(subject.model, dtype, torch.device("cpu"))
        size_on_disk = bytes_on_disk(on_cpu)
        for device_name in devices:
            row = FormatRow(
                network=subject.name,
                image_shape="×".join(map(str, subject.inputs.shape[1:])),
                device=device_name,
                dtype=dtype_name,
                batch_size=0,
                parameters=counting.parameters(on_cpu),
                bytes_on_disk=size_on_disk,
                tensor_bytes=tensor_bytes(on_cpu),
                threads=threads,
            )
            if device_name == "cuda" and not torch.cuda.is_available():
                if dtype_name in dtypes:
                    for size in batch_sizes:
                        yield replace(row, batch_size=size, note="no CUDA device")
                continue
            device = torch.device(device_name)
            model = on_cpu.to(device)
            quality, classes = _quality(
                subject, model, reference.get(device_name), seconds, agreement_images
            )
            reference.setdefault(device_name, classes)
            if dtype_name in dtypes:
                row = replace(row, **quality)
                yield from _timed_rows(row, subject, model, batch_sizes, threads, seconds)


def _timed_rows(
    row: FormatRow,
    subject: Subject,
    model: nn.Module,
    batch_sizes: Sequence[int],
    threads: int,
    seconds: float,
) -> Iterator[FormatRow]:
    per_image, first = None, next(model.parameters())
    for size in batch_sizes:
        batch = subject.inputs[:size].to(first).contiguous(memory_format=torch.channels_last)
        timing = timed(model, batch, threads=threads, seconds=seconds, per_image=per_image)
        notes = "; ".join(filter(None, (timing.note, subject.note)))
        filled = replace(row, batch_size=size, note=notes, peak_memory_bytes=timing.peak_memory)
        if timing.latency is not None:
            per_image = timing.latency.median / size
            filled = replace(
                filled,
                latency_ms=timing.latency.median_ms,
                latency_iqr_ms=timing.latency.iqr_ms,
                runs=timing.latency.runs,
            )
        yield filled
