"""torch and ONNX Runtime side by side, and what is said where one is not there."""

from itertools import zip_longest

import pytest
import torch

from stages.lib.core import engines, records
from stages.lib.core.engines import ENGINES
from stages.lib.engines import benchmark, latency, onnx_export
from stages.lib.engines.latency import Latency
from stages.lib.evaluation import images
from stages.lib.evaluation.evaluator import Evaluator
from stages.lib.evaluation.samples import Samples
from tests import toys

CPU = torch.device("cpu")
NORMALIZE = images.Normalize([0.5], [0.25], CPU)
PIXELS = toys.halves(5).images
SAMPLES = Samples(PIXELS, torch.zeros(5), NORMALIZE)
ABOUT = {"seed": 3, "method": "baseline", "target_sparsity": 0.5, "weight_bits": 32, "model": "m"}


@pytest.fixture(scope="module")
def network():
    return toys.lived_in(toys.convnet())


@pytest.fixture(scope="module")
def of_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "f.onnx"
    path.write_bytes(onnx_export.export(network, SAMPLES, ["a", "b", "c"], {}))
    row, _ = Evaluator(3, toys.data(), 1).row(network, "onnx_baseline_float32", model=str(path))
    return benchmark.of_file(row, ENGINES["onnxruntime"], {}, 1)


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
        assert min(line["latency_ms"], line["repetitions"]) > 0
        assert (line["threads"], line["seed"], line["isa"]) == (1, 3, "avx2")


def test_each_engine_gives_the_same_logits(network, of_file):
    with torch.inference_mode():
        eager, half = (
            benchmark.of_torch(ABOUT, network, NORMALIZE, CPU, dtype).prepare(PIXELS)()
            for dtype in ("float32", "bfloat16")
        )
        deployed = torch.from_numpy(of_file.prepare(PIXELS)())
    assert torch.allclose(eager, deployed, atol=1e-4)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(eager, half.float(), atol=0.1 * float(eager.abs().max()))


def test_an_engine_that_is_not_installed_has_one_line_that_says_so(of_file, tmp_path):
    path = of_file.about["model"]
    rows = [
        Evaluator(3, toys.data(), 1).row(toys.convnet(), method, model=path)[0]
        for method in ("onnx_baseline_float32", "onnx_baseline_int8")
    ]
    (absent,) = [engine.name for engine in ENGINES.values() if engine.requirements]
    lines = measured(benchmark.of_files(rows, {absent: None}, 1))
    told = "not run: OpenVINO is not installed (pip install -r requirements-openvino.txt)"
    assert [(line["method"], line["engine"]) for line in lines] == [
        ("onnx_baseline_float32", "onnxruntime"),
        ("onnx_baseline_float32", absent),
        ("onnx_baseline_int8", "onnxruntime"),
    ]
    assert lines[1]["note"] == told
    assert [line["repetitions"] > 0 for line in lines] == [True, False, True]
    there = benchmark.of_files(rows, {absent: "1.0"}, 1)
    assert [one.engine for one in there] == ["onnxruntime", absent] * 2


def test_a_file_that_an_engine_cannot_load_has_a_line_that_says_why(of_file, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    row, _ = Evaluator(3, toys.data(), 1).row(
        toys.convnet(), "onnx_baseline_float32", model=str(broken)
    )
    lines = measured([*benchmark.of_files([row], engines.installed(), 1), of_file])
    for line in lines[:-1]:
        assert line["note"].startswith("not run: ")
        assert (line["repetitions"], "\n" in line["note"]) == (0, False)
    assert lines[-1]["repetitions"] > 0


UNSTEADY = "unsteady: the IQR is 40 % of the median; not ranked"
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
    left = iter(times)
    monkeypatch.setattr(latency, "steady", lambda calls, *_: [next(left) for _ in calls])
    lines = measured([benchmark.of_torch(ABOUT, network, NORMALIZE, CPU)], sizes=(1, 64))
    assert [line["note"] for line in lines] == told
    for line, given in zip_longest(lines, times):
        assert line.get("latency_ms") == (given and given.median * 1e3)
        assert line["repetitions"] == (given.repetitions if given else 0)


def test_a_network_that_fails_has_a_line_that_says_why(network):
    def answer(net, batch):
        if len(batch) > 1:
            raise RuntimeError("view size is not compatible\nand a trace")
        return net.fc(batch.flatten(1))

    networks = toys.Net(answer, fc=torch.nn.Linear(64, 3)), network
    subjects = [benchmark.of_torch(ABOUT, one, NORMALIZE, CPU) for one in networks]
    lines = measured(subjects, sizes=(1, 2))
    assert lines[2]["note"] == "not run: view size is not compatible"
    assert [line["repetitions"] > 0 for line in lines] == [True, True, False, True]
