"""torch, torch.compile and ONNX Runtime side by side, and what is said where one is not there."""

import time

import pytest
import torch

from stages.lib.analysis import tables
from stages.lib.core import paths, records
from stages.lib.core.records import Row
from stages.lib.engines import benchmark, onnx_export, torch_compile
from stages.lib.evaluation import images
from stages.lib.evaluation.inference import Samples
from tests import toys

CPU = torch.device("cpu")
NORMALIZE = images.Normalize([0.5], [0.25], CPU)


@pytest.fixture(scope="module")
def network():
    return toys.lived_in(toys.convnet())


@pytest.fixture(scope="module")
def samples():
    return Samples(toys.halves(5).images, torch.zeros(5).long(), NORMALIZE)


def row(method, bits=32, model="somewhere"):
    return Row(
        seed=3, method=method, layer="all", weight_bits=bits, target_sparsity=0.5, sparsity=0.5,
        parameters=1, nonzero_parameters=1, macs=1, extra_epochs=0,
        validation_accuracy=1, test_accuracy=1, bytes_on_disk=1, model=model,
    )  # fmt: skip


def measured(subjects, samples, size=2):
    return list(
        benchmark.measure(subjects, samples, size, threads=1, seconds=0.02, isa="avx2 avx512_vnni")
    )


def test_every_engine_has_a_line_in_order(network, samples):
    file = onnx_export.export(network, NORMALIZE, (1, 8, 8), ["a", "b", "c"], {})
    subjects = [
        benchmark.of_torch(row("baseline"), network, NORMALIZE),
        benchmark.of_file(row("onnx_float32", model="f.onnx"), file, 1),
    ]
    lines = measured(subjects, samples, size=8)
    assert [line["engine"] for line in lines] == ["torch", "onnxruntime"]
    assert [line["method"] for line in lines] == ["baseline", "onnx_float32"]
    assert lines[0]["relative_to_eager"] == 1
    assert lines[1]["relative_to_eager"] > 0
    for line in lines:
        assert set(line) == set(records.ENGINE_LATENCY)
        assert line["latency_ms"] > 0
        # Where the machine is busy, a call may fill its box.
        assert (line["runs"] == 1) == line["note"].startswith("one call")
        assert (line["batch_size"], line["threads"], line["seed"]) == (8, 1, 3)
        assert line["isa"] == "avx2 avx512_vnni"


def test_each_engine_gives_the_same_logits(network, samples):
    file = onnx_export.export(network, NORMALIZE, (1, 8, 8), ["a", "b", "c"], {})
    with torch.inference_mode():
        eager = benchmark.of_torch(row("baseline"), network, NORMALIZE).prepare(samples.images)
        deployed = benchmark.of_file(row("onnx"), file, 1).prepare(samples.images)
        wanted, found = eager.call(), torch.from_numpy(deployed.call()[0])
    assert torch.allclose(wanted, found, atol=1e-4)


def test_without_a_compiler_a_line_says_so(network, samples, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    subjects = [
        benchmark.of_torch(row("baseline"), network, NORMALIZE),
        benchmark.of_compiled(row("baseline"), network, NORMALIZE, 60),
    ]
    eager, line = measured(subjects, samples)
    assert line["note"] == "no C++ compiler for torch.compile"
    assert line["runs"] == 0
    assert "latency_ms" not in line
    assert eager["runs"] > 0


@pytest.fixture
def _a_compiler(monkeypatch):
    monkeypatch.setattr(torch_compile, "compiler", lambda: "c++")


@pytest.mark.usefixtures("_a_compiler")
def test_a_compiler_that_takes_too_long_is_given_up(network, monkeypatch):
    def stubborn(batch):
        try:
            time.sleep(30)
        except Exception:  # noqa: BLE001 - as compilers do
            return batch

    monkeypatch.setattr(torch, "compile", lambda model, **options: stubborn)
    start = time.perf_counter()
    found = torch_compile.compile_for(network, torch.zeros(1), 0.1)
    assert time.perf_counter() - start < 5
    assert found == (None, "torch.compile took more than 0.1 s")


@pytest.mark.usefixtures("_a_compiler")
def test_a_compiler_that_fails_is_told_in_a_line(network, monkeypatch):
    def broken(batch):
        raise RuntimeError("\nno header\nand a trace")

    monkeypatch.setattr(torch, "compile", lambda model, **options: broken)
    found = torch_compile.compile_for(network, torch.zeros(1), 60)
    assert found == (None, "torch.compile failed (no header)")


class Compiled(torch.nn.Module):
    """As torch's: its truth is that of a length which the network has not."""

    def forward(self, batch):
        return batch

    def __len__(self):
        raise TypeError("no length")


@pytest.mark.usefixtures("_a_compiler")
def test_a_compiled_network_is_timed(network, samples, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **options: Compiled())
    (line,) = measured([benchmark.of_compiled(row("baseline"), network, NORMALIZE, 60)], samples)
    assert line["engine"] == "torch.compile"
    assert line["latency_ms"] > 0


@pytest.mark.usefixtures("_a_compiler")
def test_what_is_compiled_is_called_and_the_alarm_is_off_again(network, monkeypatch):
    import signal

    seen = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: seen.append)
    batch = torch.zeros(1)
    found = torch_compile.compile_for(network, batch, 60)
    assert found.note == ""
    assert found.network is not None
    assert seen == [batch]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_files_and_predictions_of_all_sparsities_and_widths_have_names_of_their_own():
    assert paths.onnx_name("onnx_float32", 0) == "onnx_float32.onnx"
    assert paths.onnx_name("onnx_finetune_int8", 0.98) == "onnx_finetune_int8-0.98.onnx"
    names = {
        paths.prediction_name("onnx_finetune", sparsity, bits)
        for sparsity in (0, 0.4, 0.98)
        for bits in (7, 8, 32)
    }
    assert len(names) == 9
    assert paths.prediction_name("affine_tensor", 0, 8) == "affine_tensor-8bit"


def test_deployed_networks_have_names_for_people():
    assert tables.network("onnx_int8_minmax", 8, 0) == "ONNX Runtime int8, min-max"
    assert tables.network("onnx_finetune_int8", 7, 0.98).endswith("int8, 98 %")
    assert tables.network("affine_tensor", 8, 0) == "int8, affine per tensor"
    assert not set(tables.METHODS) & set(tables.DEPLOYED)
