import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from stages.lib.core import records
from stages.lib.engines import number_formats
from stages.lib.engines.number_formats import Subject
from stages.lib.evaluation import counting, inference
from stages.lib.models import checkpoints
from tests import toys

ALL = ["float32", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def subject():
    return Subject("toy", toys.lived_in(toys.convnet(16)), toys.halves(40))


def benched(subject, devices=("cpu",), dtypes=ALL, seconds=9.0):
    return list(number_formats.bench(subject, devices, dtypes, seconds))


@torch.no_grad()
def test_calibrated_batch_norms_have_the_inputs_statistics_and_keep_float16_finite():
    layers = [layer for _ in range(4) for layer in (nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))]
    model, inputs = nn.Sequential(*layers).train(), toys.noise(50, (2, 4, 4)) * 5 + 2
    for layer in layers[1::2]:
        layer.weight.fill_(100)

    def is_finite():
        half = number_formats.cast(model, "float16", torch.device("cpu"))
        assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
        assert not half.training
        return bool(torch.isfinite(half(inputs.half())).all())

    assert not is_finite()
    number_formats.calibrate_batch_norm(model, inputs)
    assert is_finite()
    assert not model.training
    torch.testing.assert_close(layers[0].running_mean, inputs.mean((0, 2, 3)))
    torch.testing.assert_close(layers[0].running_var, inputs.var((0, 2, 3)))


def test_a_trained_network_has_bytes_and_accuracy_in_every_format(subject):
    before = copy.deepcopy(subject.model)
    lines = benched(subject)
    assert toys.same_state(subject.model, before)
    assert [line["dtype"] for line in lines] == ALL
    whole, *halves = lines
    assert whole["accuracy"] == inference.accuracy(subject.model, subject.samples)
    for line in lines:
        assert set(line) < set(records.FORMAT)
        assert (line["network"], line["device"], line["image_shape"]) == ("toy", "cpu", "1×8×8")
        assert line["parameters"] == counting.parameters(subject.model)
        assert line["bytes_on_disk"] > line["tensor_bytes"]
        assert 0 <= line["accuracy"] <= 1
        assert "agreement" not in line
    for line in halves:
        assert 0.45 < line["bytes_on_disk"] / whole["bytes_on_disk"] < 0.55
        assert 0.5 <= line["tensor_bytes"] / whole["tensor_bytes"] < 0.51


@pytest.mark.parametrize(
    ("dtype", "share"), [("float32", 1.0), ("float16", 1.0), ("bfloat16", 0.5)]
)
def test_agreement_is_with_float32_whether_or_not_that_is_asked_for(monkeypatch, dtype, share):
    monkeypatch.setattr(checkpoints, "serialized_bytes", lambda model: 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    # bfloat16 cannot tell 256 from 257, and the first of equals wins.
    model[1].weight.data = torch.eye(2) * torch.tensor([256.0, 257.0])
    images = torch.tensor([[255, 255], [255, 0]] * 4, dtype=torch.uint8).view(8, 2, 1, 1)
    samples = toys.samples(images, torch.zeros(8))
    (line,) = benched(Subject("toy", model, samples, False, "random"), dtypes=[dtype])
    assert (line["dtype"], line["agreement"], line["agreement_images"]) == (dtype, share, 8)
    assert "accuracy" not in line
    assert line["note"] == "random"


def test_where_time_runs_out_the_accuracy_is_of_a_sample_of_all_classes(subject):
    labels = toys.halves(40).labels.sort().values
    sample = replace(subject, samples=toys.samples(toys.halves(40).images, labels))
    lines = benched(sample, seconds=0)
    assert {line["agreement_images"] for line in lines} == {number_formats.BATCH}
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert set(labels[order[: number_formats.BATCH]].tolist()) == {0, 1, 2}
    assert lines[0]["agreement"] == 1


def test_without_cuda_its_lines_say_so(subject, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines = benched(subject, devices=["cpu", "cuda"], dtypes=["bfloat16"])
    assert [(line["device"], line["dtype"]) for line in lines] == [
        ("cpu", "bfloat16"), ("cuda", "bfloat16"),
    ]  # fmt: skip
    assert lines[1]["note"] == "no CUDA device"
    assert lines[1]["bytes_on_disk"] == lines[0]["bytes_on_disk"]
    assert not {"accuracy", "agreement"} & set(lines[1])
