"""The same networks executed by torch, by torch.compile and by ONNX Runtime: timed side by side."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core.params import LatencyBench
from stages.lib.core.records import Row
from stages.lib.engines import latency, number_formats, onnx_session, torch_compile
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.inference import Samples

CPU = torch.device("cpu")


class Prepared(NamedTuple):
    """A call to time; or None, and note says why there is none."""

    call: Callable[[], object] | None
    note: str = ""


class Subject(NamedTuple):
    """A network in an engine.

    engine: what executes it, with the number format where that is not float32.
    row: of the network; device: where it runs.
    prepare: from images, uint8 [n, c, h, w], to the call.
    """

    engine: str
    row: Row
    device: torch.device
    prepare: Callable[[torch.Tensor], Prepared]


def of_torch(
    row: Row, network: nn.Module, normalize: Normalize, device: torch.device, dtype: str = "float32"
) -> Subject:
    """Eager torch, on images that are normalized before the clock starts: its best case."""
    network = number_formats.cast(network, number_formats.DTYPES[dtype], device)
    first = next(network.parameters())

    def prepare(images: torch.Tensor) -> Prepared:
        batch = normalize(images).to(first).contiguous(memory_format=torch.channels_last)
        return Prepared(partial(network, batch))

    name = "torch" if dtype == "float32" else f"torch {dtype}"
    return Subject(name, row, device, prepare)


def of_compiled(row: Row, network: nn.Module, normalize: Normalize, seconds: float) -> Subject:
    """torch.compile on the CPU, on normalized images; it is given up after `seconds`."""

    def prepare(images: torch.Tensor) -> Prepared:
        batch = normalize(images).cpu()
        found = torch_compile.compile_for(network.cpu(), batch, seconds)
        if found.network is None:
            return Prepared(None, found.note)
        return Prepared(partial(found.network, batch))

    return Subject("torch.compile", row, CPU, prepare)


def of_file(row: Row, threads: int) -> Subject:
    """ONNX Runtime on the CPU, on raw images: the file normalizes them.

    Its threads do not spin while they wait: in turns with torch's on the same cores they made that
    ten times slower. With one thread there is none that waits.
    """
    file = Path(row.model).read_bytes()
    session = onnx_session.session(file, threads, name=row.model, spinning=False)
    return Subject(
        "onnxruntime", row, CPU, lambda images: Prepared(onnx_session.call(session, images.numpy()))
    )


def measure(
    subjects: Sequence[Subject], samples: Samples, size: int, options: LatencyBench, isa: str
) -> Iterator[dict[str, Any]]:
    """Lines of records.LATENCY, one per subject, those of a device together: the latency for a
    batch of `size` images, all taken in turns.

    options: of the params; isa: the instruction sets that kernels choose by.
    """
    batch = samples.images[torch.arange(size) % len(samples.images)].cpu()
    for device in dict.fromkeys(one.device for one in subjects):
        here = [one for one in subjects if one.device == device]
        prepared = [one.prepare(batch) for one in here]
        with torch.inference_mode():
            found = latency.interleaved(
                [one.call for one in prepared if one.call],
                device=device,
                threads=options.threads,
                seconds=options.seconds,
            )
        times = iter(found)
        for subject, (call, note) in zip(here, prepared, strict=True):
            line = {
                "seed": subject.row.seed,
                "method": subject.row.method,
                "engine": subject.engine,
                "target_sparsity": subject.row.target_sparsity,
                "weight_bits": subject.row.weight_bits,
                "device": device.type,
                "batch_size": size,
                "threads": options.threads,
                "isa": isa,
                "repetitions": 0,
                "model": subject.row.model,
                "note": note,
            }
            if call:
                time = next(times)
                line |= {
                    "latency_ms": time.median_ms,
                    "latency_iqr_ms": time.iqr_ms,
                    "repetitions": time.runs,
                    "note": "one call fills the time box: no IQR" if time.runs == 1 else note,
                }
            yield line
