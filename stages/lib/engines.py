"""The same network executed by torch, by torch.compile and by ONNX Runtime: timed side by side."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib import compiled, latency, onnx_run
from stages.lib.evaluation import Samples
from stages.lib.images import Normalize
from stages.lib.records import Row


class Prepared(NamedTuple):
    """A call to time; or None, and note says why there is none."""

    call: Callable[[], object] | None
    note: str = ""


class Subject(NamedTuple):
    """engine; row: of the network; prepare: from images, uint8 [n, c, h, w], to the call."""

    engine: str
    row: Row
    prepare: Callable[[torch.Tensor], Prepared]


def of_torch(row: Row, network: nn.Module, normalize: Normalize) -> Subject:
    """Eager torch, on images that are normalised before the clock starts: its best case."""
    return Subject("torch", row, lambda images: Prepared(partial(network, normalize(images))))


def of_compiled(row: Row, network: nn.Module, normalize: Normalize, seconds: float) -> Subject:
    """torch.compile, on normalised images; it is given up after `seconds`."""

    def prepare(images: torch.Tensor) -> Prepared:
        batch = normalize(images)
        found = compiled.compile_for(network, batch, seconds)
        if found.network is None:
            return Prepared(None, found.note)
        return Prepared(partial(found.network, batch))

    return Subject("torch.compile", row, prepare)


def of_file(row: Row, file: bytes, threads: int) -> Subject:
    """ONNX Runtime, on raw images: the file normalises them.

    Its threads do not spin while they wait: in turns with torch's on the same cores they made that
    ten times slower. With one thread there is none that waits.
    """
    session = onnx_run.session(file, threads, name=row.model, spinning=False)
    return Subject(
        "onnxruntime", row, lambda images: Prepared(onnx_run.call(session, images.numpy()))
    )


def measure(
    subjects: Sequence[Subject],
    samples: Samples,
    size: int,
    *,
    threads: int,
    seconds: float,
    isa: str,
) -> Iterator[dict[str, Any]]:
    """Lines of records.ENGINE_LATENCY, one per subject, in order: the latency on the CPU for a
    batch of `size` images, all taken in turns, and relative to the first one's.
    """
    batch = samples.images[torch.arange(size) % len(samples.images)].cpu()
    prepared = [one.prepare(batch) for one in subjects]
    with torch.inference_mode():
        found = latency.interleaved(
            [one.call for one in prepared if one.call],
            device=torch.device("cpu"),
            threads=threads,
            seconds=seconds,
        )
    times = iter(found)
    for subject, (call, note) in zip(subjects, prepared, strict=True):
        line = {
            "seed": subject.row.seed,
            "method": subject.row.method,
            "engine": subject.engine,
            "target_sparsity": subject.row.target_sparsity,
            "weight_bits": subject.row.weight_bits,
            "device": "cpu",
            "batch_size": size,
            "threads": threads,
            "isa": isa,
            "runs": 0,
            "model": subject.row.model,
            "note": note,
        }
        if call:
            time = next(times)
            line |= {
                "latency_ms": time.median_ms,
                "latency_iqr_ms": time.iqr_ms,
                "runs": time.runs,
                "relative_to_eager": latency.relative(time, found[0]),
                "note": "one call fills the time box: no spread" if time.runs == 1 else note,
            }
        yield line
