"""Times networks in torch and, as ONNX files, in every other engine, in turns."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core import engines, errors, records
from stages.lib.core.engines import Engine
from stages.lib.core.errors import UserError
from stages.lib.core.records import Row
from stages.lib.engines import executors, latency, number_formats
from stages.lib.engines.latency import Call, Latency
from stages.lib.evaluation.images import Normalize
from stages.lib.models.modes import input_like

CPU = torch.device("cpu")
# The cost of an image in a batch, as a share of its cost alone. Measured for ResNet-152 in float32
# on two cores, batch 64: 0.3 at 64 pixels, 2.0 at 224 pixels. A rough guess is enough.
BATCHING_GAIN = 0.5


class Subject(NamedTuple):
    """A network in an engine.

    engine: its name, with the number format if that is not float32.
    about: the columns of records.LATENCY that identify the network.
    device: on which it runs.
    prepare: makes the call from images, uint8 [n, c, h, w]. An exception becomes a note.
    """

    engine: str
    about: dict[str, Any]
    device: torch.device
    prepare: Callable[[torch.Tensor], Call]


def about(row: Row) -> dict[str, Any]:
    """The columns of records.LATENCY that identify the network of a row."""
    columns = ("seed", "method", "target_sparsity", "weight_bits", "model")
    return {name: getattr(row, name) for name in columns}


def of_torch(
    about: dict[str, Any],
    network: nn.Module,
    normalize: Normalize,
    device: torch.device,
    dtype: str = "float32",
) -> Subject:
    """Eager torch. Images are normalized before the clock starts, which favours torch.

    dtype: of weights and activations: float32, float16 or bfloat16.
    """
    network = number_formats.cast(network, dtype, device)
    like = input_like(network)

    def prepare(images: torch.Tensor) -> Call:
        return partial(network, normalize(images).to(like))

    return Subject(records.torch_engine(dtype), about, device, prepare)


def of_graph(eager: Subject, dtype: str) -> Subject:
    """The same calls replayed from a CUDA graph: no time is spent on launching kernels.

    eager: of `of_torch`, on a GPU.
    dtype: its number format.
    """

    def prepare(images: torch.Tensor) -> Call:
        call, graph, stream = eager.prepare(images), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    return eager._replace(engine=records.torch_engine(dtype, replayed=True), prepare=prepare)


def in_torch(
    about: dict[str, Any],
    network: nn.Module,
    normalize: Normalize,
    devices: Sequence[torch.device],
    dtypes: Sequence[str],
) -> list[Subject]:
    """A network in torch on every device in every number format, on a GPU eager and replayed."""
    subjects = []
    for device in devices:
        for dtype in dtypes:
            eager = of_torch(about, network, normalize, device, dtype)
            subjects.append(eager)
            if device.type == "cuda":
                subjects.append(of_graph(eager, dtype))
    return subjects


def of_file(row: Row, engine: Engine, versions: engines.Versions, threads: int) -> Subject:
    """An ONNX file in an engine on the CPU, on raw images, which the file normalizes.

    Its threads do not spin while they wait: when timed in turns with torch on the same cores,
    spinning made torch ten times slower. With one thread, none waits.

    versions: of `engines.read`. An engine that is not installed is a note.
    """

    def prepare(images: torch.Tensor) -> Call:
        if why := engines.missing(engine, versions):
            raise UserError(why)
        file = Path(row.model).read_bytes()
        execute = executors.load(engine, file, threads, row.model, spinning=False)
        return partial(execute, images.contiguous().numpy())

    return Subject(engine.name, about(row), CPU, prepare)


def of_files(rows: Sequence[Row], versions: engines.Versions, threads: int) -> list[Subject]:
    """ONNX files, each in every engine; in an engine that is not installed the first alone, which
    says so.
    """
    return [
        of_file(row, engine, versions, threads)
        for place, row in enumerate(rows)
        for engine in engines.of_file(row.model)
        if place == 0 or not engines.missing(engine, versions)
    ]


def _prepared(
    subject: Subject, images: torch.Tensor, per_image: float, seconds: float
) -> tuple[Call | None, str]:
    """The call, after running it once; or None, and why it fails or is not run."""
    expected = per_image * len(images) * BATCHING_GAIN
    if expected > latency.MOST_BOXES * seconds:
        box = f"the time box is {seconds:g} s"
        return None, f"not run: a call would take about {expected:.2g} s, {box}"
    try:
        call = subject.prepare(images)
        call()
        return call, ""
    except Exception as error:  # noqa: BLE001 - any network, any engine
        return None, f"not run: {errors.reason(error)}"


def _measured(time: Latency) -> dict[str, Any]:
    """The columns of a latency, with a note."""
    note = ""
    if time.repetitions == 1:
        note = "one call takes longer than the time box: no IQR"
    elif not time.is_steady:
        note = (
            f"unsteady: the IQR is {100 * time.iqr / time.median:.0f} % of the median; not ranked"
        )
    latencies = {"latency_ms": time.median * 1e3, "latency_iqr_ms": time.iqr and time.iqr * 1e3}
    return {**latencies, "repetitions": time.repetitions, "note": note}


@torch.no_grad()
def measure(
    subjects: Sequence[Subject],
    images: torch.Tensor,
    batch_sizes: Sequence[int],
    *,
    threads: int,
    seconds: float,
    isa: str,
) -> Iterator[dict[str, Any]]:
    """Yields a line of records.LATENCY for each batch size and subject. Subjects of one device are
    timed in turns.

    images: uint8 [n, c, h, w], repeated for a larger batch.
    batch_sizes: ascending. A call is skipped if, judging by the smaller batch, it would take longer
        than MOST_BOXES time boxes.
    threads: of torch, from now on.
    seconds: the time box of a subject and batch size.
    isa: the instruction sets that decide the speed of kernels.
    """
    torch.set_num_threads(threads)
    per_image = [0.0] * len(subjects)
    devices = dict.fromkeys(subject.device for subject in subjects)
    for size, device in ((size, device) for size in batch_sizes for device in devices):
        batch = images[torch.arange(size) % len(images)].cpu()
        place = {"device": device.type, "batch_size": size, "threads": threads, "isa": isa}
        prepared = {
            index: _prepared(subject, batch, per_image[index], seconds)
            for index, subject in enumerate(subjects)
            if subject.device == device
        }
        calls = [call for call, _ in prepared.values() if call]
        times = iter(latency.steady(calls, seconds, latency.clock_of(device)))
        for index, (call, note) in prepared.items():
            measured = {"repetitions": 0, "note": note}
            if call:
                time = next(times)
                measured, per_image[index] = _measured(time), time.median / size
            yield {**subjects[index].about, "engine": subjects[index].engine, **place, **measured}
