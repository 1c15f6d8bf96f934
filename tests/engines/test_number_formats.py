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

CPU = torch.device("cpu")
ALL = ["float32", "float16", "bfloat16"]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, images):
        return images + self.norm(self.convolution(images))


def deep():
    """So deep a residual network that its activations overflow float16 where the batch norms do
    not normalize.
    """
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(2) for _ in range(60)), nn.Flatten(), nn.Linear(32, 3))
    for module in model:
        if isinstance(module, Block):
            module.convolution.weight.data *= 3
    return model


@pytest.fixture(scope="module")
def subject():
    return Subject("toy", toys.lived_in(toys.convnet(16)), toys.halves(40))


def benched(subject, devices=("cpu",), dtypes=ALL, seconds=9.0):
    return list(number_formats.bench(subject, devices, dtypes, seconds))


def test_a_cast_network_is_a_copy_in_the_new_dtype():
    model = toys.convnet().train()
    found = number_formats.cast(model, "bfloat16", CPU)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}
    assert not found.training
    assert model.training
    assert toys.same_state(model, toys.convnet())


@torch.no_grad()
def test_calibrated_batch_norms_keep_float16_finite():
    model, inputs = deep(), toys.noise(8, (2, 4, 4))
    calibrated = copy.deepcopy(model)
    number_formats.calibrate_batch_norm(calibrated, inputs)

    def in_float16(network):
        return number_formats.cast(network, "float16", CPU)(inputs.half())

    assert not torch.isfinite(in_float16(model)).all()
    assert torch.isfinite(in_float16(calibrated)).all()


def test_calibration_sets_the_statistics_of_the_inputs():
    model = nn.Sequential(nn.BatchNorm2d(3))
    inputs = toys.noise(50, (3, 4, 4)) * 5 + 2
    number_formats.calibrate_batch_norm(model, inputs)
    torch.testing.assert_close(model[0].running_mean, inputs.mean((0, 2, 3)))
    torch.testing.assert_close(model[0].running_var, inputs.var((0, 2, 3)))
    assert not model.training


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


@pytest.mark.parametrize(
    ("classes", "float32", "share", "count"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0, 4),
        ([1, 0, 3, 0], [1, 2, 3, 4], 0.5, 4),
        ([1, 2, 0], [1, 2, 3, 4], 2 / 3, 3),
        ([0, 1], [1], 0.0, 1),
    ],
)
def test_agreement_of_known_classes(subject, classes, float32, share, count):
    untrained = replace(subject, is_trained=False)
    columns = number_formats.quality(untrained, None, torch.tensor(classes), torch.tensor(float32))
    assert columns == {"agreement": pytest.approx(share), "agreement_images": count}


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
