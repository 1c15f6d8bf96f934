"""torch, torch.compile and ONNX Runtime side by side, and what is said where one is not there."""

import signal
import time

import pytest
import torch

from stages.lib.core import records
from stages.lib.core.records import Row
from stages.lib.engines import benchmark, latency, onnx_export, torch_compile
from stages.lib.engines.latency import Latency
from stages.lib.evaluation import images
from tests import toys

CPU = torch.device("cpu")
NORMALIZE = images.Normalize([0.5], [0.25], CPU)
PIXELS = toys.halves(5).images
ABOUT = {"seed": 3, "method": "baseline", "target_sparsity": 0.5, "weight_bits": 32, "model": "m"}


@pytest.fixture(scope="module")
def network():
    return toys.lived_in(toys.convnet())


@pytest.fixture(scope="module")
def of_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "f.onnx"
    path.write_bytes(onnx_export.export(network, NORMALIZE, (1, 8, 8), ["a", "b", "c"], {}))
    row = Row(
        seed=3, method="onnx_baseline_float32", layer="all", weight_bits=32, target_sparsity=0.5,
        sparsity=0.5, parameters=1, nonzero_parameters=1, macs=1, extra_epochs=0,
        validation_accuracy=1, test_accuracy=1, bytes_on_disk=1, model=str(path),
    )  # fmt: skip
    return benchmark.of_file(row, 1)


def measured(subjects, sizes=(2,), seconds=0.02):
    return list(benchmark.measure(subjects, PIXELS, sizes, threads=1, seconds=seconds, isa="avx2"))


def test_every_engine_and_batch_has_a_line_in_order(network, of_file):
    subjects = [
        benchmark.of_torch(ABOUT, network, NORMALIZE, CPU),
        benchmark.of_torch(ABOUT, network, NORMALIZE, CPU, "bfloat16"),
        of_file,
    ]
    lines = measured(subjects, sizes=(1, 8))
    engines = ["torch", "torch bfloat16", "onnxruntime"]
    assert [line["engine"] for line in lines] == engines * 2
    assert [line["batch_size"] for line in lines] == [1] * 3 + [8] * 3
    for line in lines:
        assert set(line) == set(records.LATENCY)
        assert line["latency_ms"] > 0
        assert line["repetitions"] > 0
        assert (line["threads"], line["seed"], line["isa"]) == (1, 3, "avx2")


def test_each_engine_gives_the_same_logits(network, of_file):
    with torch.inference_mode():
        eager, half = (
            benchmark.of_torch(ABOUT, network, NORMALIZE, CPU, dtype).prepare(PIXELS).call()
            for dtype in ("float32", "bfloat16")
        )
        deployed = torch.from_numpy(of_file.prepare(PIXELS).call()[0])
    assert torch.allclose(eager, deployed, atol=1e-4)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(eager, half.float(), atol=0.1 * float(eager.abs().max()))


UNSTEADY = "unsteady: the IQR is 40% of the median; not ranked"
LONG = "one call takes longer than the time box: no IQR"
# 64 images take about half of 64 times as long.
NOT_RUN = "not run: a call would take about 3.2 s, the time box is 0.02 s"


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([Latency(0.001, 0.0001, 5)] * 2, ["", ""]),
        ([Latency(0.001, 0.0004, 5)] * 2, [UNSTEADY, UNSTEADY]),
        ([Latency(0.001, None, 1)] * 2, [LONG, LONG]),
        ([Latency(0.1, None, 1)], [LONG, NOT_RUN]),
    ],
)
def test_a_latency_that_says_little_says_so(network, monkeypatch, times, told):
    given = iter(times)
    monkeypatch.setattr(latency, "steady", lambda calls, **_: [next(given) for _ in calls])
    lines = measured([benchmark.of_torch(ABOUT, network, NORMALIZE, CPU)], sizes=(1, 64))
    assert [line["note"] for line in lines] == told
    timed = times + [None] * (2 - len(times))
    assert [line["latency_ms"] for line in lines] == [one and one.median * 1e3 for one in timed]
    assert [line["repetitions"] for line in lines] == [
        one.repetitions if one else 0 for one in timed
    ]


def test_without_a_compiler_a_line_says_so(network, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    subjects = [
        benchmark.of_torch(ABOUT, network, NORMALIZE, CPU),
        benchmark.of_compiled(ABOUT, network, NORMALIZE, 60),
    ]
    eager, line = measured(subjects)
    assert line["note"] == "no C++ compiler for torch.compile"
    assert line["repetitions"] == 0
    assert line["latency_ms"] is None
    assert eager["repetitions"] > 0


@pytest.fixture
def compiling(monkeypatch):
    """Has torch.compile make a function of a batch out of any network."""
    monkeypatch.setattr(torch_compile, "compiler", lambda: "c++")
    return lambda function: monkeypatch.setattr(torch, "compile", lambda model, **options: function)


def stubborn(batch):
    try:
        time.sleep(30)
    except Exception:  # noqa: BLE001 - as compilers do
        return batch


def broken(batch):
    raise RuntimeError("\nno header\nand a trace")


@pytest.mark.parametrize(
    ("compiled", "note"),
    [
        (stubborn, "torch.compile took more than 0.1 s"),
        (broken, "torch.compile failed (no header)"),
    ],
)
def test_a_compiler_that_fails_or_takes_too_long_is_given_up(network, compiling, compiled, note):
    compiling(compiled)
    assert torch_compile.compile_for(network, torch.zeros(1), 0.1) == (None, note)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


class Compiled(torch.nn.Module):
    """As torch's: its truth is that of a length which the network has not."""

    def forward(self, batch):
        return batch

    def __len__(self):
        raise TypeError("no length")


def test_a_compiled_network_is_timed(network, compiling):
    compiling(Compiled())
    (line,) = measured([benchmark.of_compiled(ABOUT, network, NORMALIZE, 60)])
    assert line["engine"] == "torch.compile"
    assert line["latency_ms"] > 0


def test_what_is_compiled_is_called_with_the_batch(network, compiling):
    batches, batch = [], torch.zeros(1)
    compiling(batches.append)
    compiled = torch_compile.compile_for(network, batch, 60)
    assert compiled.note == ""
    assert compiled.network is not None
    assert batches == [batch]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
