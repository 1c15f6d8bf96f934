"""The same networks executed by torch, by torch.compile and by ONNX Runtime: timed in turns."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core import records
from stages.lib.core.records import Row
from stages.lib.engines import latency, number_formats, onnx_session, torch_compile
from stages.lib.evaluation.images import Normalize

CPU = torch.device("cpu")
# What an image costs in a batch, as a share of what it costs alone. Measured for ResNet-152 in
# float32 on two cores, batch 64: 0.3 at 64 pixels, 2.0 at 224. The guess need not be closer.
BATCHING_GAIN = 0.5


class Prepared(NamedTuple):
    """A call to time; or None, and note says why there is none."""

    call: Callable[[], object] | None
    note: str = ""


class Subject(NamedTuple):
    """A network in an engine.

    engine: what executes it, with the number format where that is not float32.
    about: the columns of records.LATENCY that say which network it is.
    device: where it runs.
    prepare: from images, uint8 [n, c, h, w], to the call.
    """

    engine: str
    about: dict[str, Any]
    device: torch.device
    prepare: Callable[[torch.Tensor], Prepared]


def about(row: Row) -> dict[str, Any]:
    """What a Subject says of the network of a row."""
    columns = ("seed", "method", "target_sparsity", "weight_bits", "model")
    return {name: getattr(row, name) for name in columns}


def of_torch(
    about: dict[str, Any],
    network: nn.Module,
    normalize: Normalize,
    device: torch.device,
    dtype: str = "float32",
) -> Subject:
    """Eager torch, on images that are normalized before the clock starts: its best case.

    dtype: of weights and activations, a name of number_formats.DTYPES.
    """
    network = number_formats.cast(network, number_formats.DTYPES[dtype], device)
    first = next(network.parameters())

    def prepare(images: torch.Tensor) -> Prepared:
        batch = normalize(images).to(first).contiguous(memory_format=torch.channels_last)
        return Prepared(partial(network, batch))

    return Subject(records.torch_engine(dtype), about, device, prepare)


def of_compiled(
    about: dict[str, Any], network: nn.Module, normalize: Normalize, seconds: float
) -> Subject:
    """torch.compile on the CPU, on normalized images; it is given up after `seconds`."""

    def prepare(images: torch.Tensor) -> Prepared:
        batch = normalize(images).cpu()
        compiled = torch_compile.compile_for(network.cpu(), batch, seconds)
        if compiled.network is None:
            return Prepared(None, compiled.note)
        return Prepared(partial(compiled.network, batch))

    return Subject("torch.compile", about, CPU, prepare)


def of_file(row: Row, threads: int) -> Subject:
    """ONNX Runtime on the CPU, on raw images: the file normalizes them.

    Its threads do not spin while they wait: in turns with torch's on the same cores they made that
    ten times slower. With one thread there is none that waits.
    """
    file = Path(row.model).read_bytes()
    session = onnx_session.session(file, threads, name=row.model, spinning=False)

    def prepare(images: torch.Tensor) -> Prepared:
        return Prepared(onnx_session.call(session, images.numpy()))

    return Subject("onnxruntime", about(row), CPU, prepare)


def _prepared(subject: Subject, batch: torch.Tensor, per_image: float, seconds: float) -> Prepared:
    expected = per_image * len(batch) * BATCHING_GAIN
    if expected <= latency.MOST_BOXES * seconds:
        return subject.prepare(batch)
    note = f"not run: a call would take about {expected:.2g} s, the time box is {seconds:g} s"
    return Prepared(None, note)


def _note(time: latency.Latency) -> str:
    if time.repetitions == 1:
        return "one call takes longer than the time box: no IQR"
    if not time.is_steady:
        return f"unsteady: the IQR is {time.iqr / time.median:.0%} of the median; not ranked"
    return ""


def measure(
    subjects: Sequence[Subject],
    images: torch.Tensor,
    batch_sizes: Sequence[int],
    *,
    threads: int,
    seconds: float,
    isa: str,
) -> Iterator[dict[str, Any]]:
    """Lines of records.LATENCY, one per batch size and subject, those of a device together and
    timed in turns.

    images: uint8 [n, c, h, w], repeated where a batch is larger.
    batch_sizes: ascending. A call that the smaller batch says takes longer than MOST_BOXES time
        boxes is not made.
    threads: of torch. seconds: the time box of a subject and batch size.
    isa: the instruction sets that kernels choose by.
    """
    per_image = dict.fromkeys(range(len(subjects)), 0.0)
    for size in batch_sizes:
        batch = images[torch.arange(size) % len(images)].cpu()
        for device in dict.fromkeys(subject.device for subject in subjects):
            prepared = {
                index: _prepared(subject, batch, per_image[index], seconds)
                for index, subject in enumerate(subjects)
                if subject.device == device
            }
            calls = {index: one.call for index, one in prepared.items() if one.call}
            with torch.inference_mode():
                timed = latency.steady(
                    list(calls.values()), device=device, threads=threads, seconds=seconds
                )
            times = dict(zip(calls, timed, strict=True))
            per_image |= {index: time.median / size for index, time in times.items()}
            for index, (_, note) in prepared.items():
                time = times.get(index)
                yield {
                    **subjects[index].about,
                    "engine": subjects[index].engine,
                    "device": device.type,
                    "batch_size": size,
                    "threads": threads,
                    "isa": isa,
                    "latency_ms": time and time.median * 1e3,
                    "latency_iqr_ms": time and time.iqr and time.iqr * 1e3,
                    "repetitions": time.repetitions if time else 0,
                    "note": _note(time) if time else note,
                }
