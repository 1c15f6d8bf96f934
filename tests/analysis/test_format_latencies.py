"""Number formats, joined with the latencies that another stage measured."""

import math

import pandas as pd

from stages.lib.analysis.number_formats import REPLAYED, TIMED, with_latencies
from stages.lib.core import records


def formats(network="baseline", devices=("cpu", "cuda"), dtypes=("float32", "float16")):
    return pd.DataFrame(
        {
            **dict.fromkeys(records.FORMAT), "network": network, "device": device, "dtype": dtype,
            "bytes_on_disk": 7, "note": "no CUDA device" if device == "cuda" else math.nan,
        }
        for dtype in dtypes for device in devices
    )  # fmt: skip


def latency(engine="torch", batch=1, time=1.0, method="baseline", seed=0, **other):
    line = {
        "seed": seed, "method": method, "engine": engine, "target_sparsity": 0.0,
        "weight_bits": 32, "device": "cpu", "batch_size": batch, "threads": 1, "isa": "",
        "latency_ms": time, "latency_iqr_ms": 0.1, "repetitions": 9, "model": "", "note": math.nan,
    }  # fmt: skip
    assert list(line) == list(records.LATENCY)
    return line | other


def joined(formats, *lines):
    timed = pd.DataFrame(lines, columns=list(records.LATENCY))
    found = with_latencies(formats, timed)
    assert list(found) == [*records.FORMAT, *TIMED]
    return found


def test_each_format_and_batch_gets_the_latency_of_its_engine():
    lines = [
        latency("torch", 1, 1.0), latency("torch float16", 1, 2.0), latency("torch", 64, 3.0),
        latency("torch float16", 64, 4.0, note="unsteady"), latency("onnxruntime", 1, 9.0),
        latency("torch", 1, 9.0, seed=1), latency("torch", 1, 9.0, method="global"),
        latency("torch", 1, 9.0, method="resnet152"),
    ]  # fmt: skip
    found = joined(formats(), *lines)
    cpu = found[found.device == "cpu"]
    assert dict(zip(zip(cpu.dtype, cpu.batch_size, strict=True), cpu.latency_ms, strict=True)) == {
        ("float32", 1): 1.0, ("float32", 64): 3.0, ("float16", 1): 2.0, ("float16", 64): 4.0,
    }  # fmt: skip
    assert list(cpu.note) == ["", "", "", "unsteady"]
    assert set(cpu.repetitions) == {9}
    assert set(found.bytes_on_disk) == {7}


def test_a_device_that_is_not_there_keeps_its_note_and_gets_every_batch_that_was_timed():
    for lines, batches in (([latency(batch=1), latency(batch=64)], [1, 64, 1, 64]), ([], [0, 0])):
        gpu = joined(formats(devices=["cuda"]), *lines)
        assert list(gpu.batch_size) == batches
        assert set(gpu.note) == {"no CUDA device"}
        assert gpu.latency_ms.isna().all()
        assert set(gpu.repetitions) == {0}


def test_cuda_graphs_have_lines_of_their_own_beside_the_eager_ones():
    lines = [
        latency(engine, batch, time, device="cuda")
        for batch in (1, 64)
        for engine, time in (("torch", 4.0), ("torch CUDA graph", 1.0), ("torch float16", 5.0),
                             ("torch CUDA graph float16", 0.5))
    ]  # fmt: skip
    measured = formats(devices=["cuda"]).assign(note=math.nan, accuracy=0.9)
    found = joined(measured, *lines)
    assert len(found) == 8
    # Accuracy was measured in eager torch alone, and counts once.
    assert set(found[found.accuracy.notna()].device) == {"cuda"}
    timed = found.set_index(["device", "dtype", "batch_size"]).latency_ms
    assert timed["cuda", "float32", 64] == 4
    assert timed["cuda", "float16", 1] == 5
    assert timed[REPLAYED, "float32", 1] == 1
    assert timed[REPLAYED, "float16", 64] == 0.5
    assert set(found.bytes_on_disk) == {7}
    assert set(found.note) == {""}
