import copy
import time

import pytest
import torch
from torch import nn

from stages.lib.engines import number_formats
from stages.lib.engines.number_formats import Subject
from stages.lib.evaluation import counting, inference
from tests import toys

SECONDS = 0.005
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
    not normalise.
    """
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(2) for _ in range(60)), nn.Flatten(), nn.Linear(32, 3))
    for module in model:
        if isinstance(module, Block):
            module.convolution.weight.data *= 3
    return model


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def unlabelled(**changes):
    usual = {
        "name": "toy",
        "model": toys.lived_in(toys.convnet()),
        "inputs": toys.noise(6),
        "samples": None,
    }
    return Subject(**{**usual, **changes})


def benched(subject, devices=("cpu",), dtypes=ALL, batch_sizes=(1, 4), **changes):
    usual = {"threads": 1, "seconds": SECONDS, "agreement_images": 6}
    return list(number_formats.bench(subject, devices, dtypes, batch_sizes, **{**usual, **changes}))


def test_a_cast_network_is_a_copy_in_the_new_dtype():
    model = toys.convnet().train()
    found = number_formats.cast(model, torch.bfloat16, torch.device("cpu"))
    assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}
    assert not found.training
    assert model.training
    assert toys.same_state(model, toys.convnet())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_file_in_half_precision_is_about_half_as_large(dtype):
    model = toys.convnet(16)
    whole = number_formats.bytes_on_disk(model)
    half = number_formats.bytes_on_disk(number_formats.cast(model, dtype, torch.device("cpu")))
    assert whole > 4 * counting.parameters(model)
    assert 0.45 < half / whole < 0.55


def top1_of(inputs, seconds):
    parts = (inputs[part] for part in number_formats.parts_of(len(inputs), 3))
    return number_formats.top1(nn.Flatten(), parts, seconds)


def test_top1_of_known_inputs():
    inputs = torch.eye(5)[[3, 1, 4, 1, 0, 2, 2, 3, 0, 4, 1]].view(11, 5, 1, 1)
    found = top1_of(inputs, seconds=60)
    assert found.dtype == torch.int64
    assert found.tolist() == [3, 1, 4, 1, 0, 2, 2, 3, 0, 4, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_top1_of_any_number_of_inputs(count):
    assert len(top1_of(toys.noise(count, (3, 1, 1)), seconds=60)) == count


def test_top1_without_time_still_answers_for_one_image():
    assert len(top1_of(toys.noise(5, (3, 1, 1)), seconds=0)) == 1


@pytest.mark.parametrize(
    ("one", "other", "share", "count"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0, 4),
        ([1, 2, 3, 4], [1, 0, 3, 0], 0.5, 4),
        ([1, 2, 3, 4], [1, 2, 0], 2 / 3, 3),
        ([1], [0, 1], 0.0, 1),
    ],
)
def test_agreement_of_known_classes(one, other, share, count):
    found = number_formats.agreement(torch.tensor(one), torch.tensor(other))
    assert found == (pytest.approx(share), count)


@torch.no_grad()
def test_calibrated_batch_norms_keep_float16_finite():
    model, inputs = deep(), toys.noise(8, (2, 4, 4))
    for_good = copy.deepcopy(model)
    number_formats.calibrate_batch_norm(for_good, inputs)

    def in_float16(network):
        return number_formats.cast(network, torch.float16, torch.device("cpu"))(inputs.half())

    assert not torch.isfinite(in_float16(model)).all()
    assert torch.isfinite(in_float16(for_good)).all()


def test_calibration_sets_the_statistics_of_the_inputs():
    model = nn.Sequential(nn.BatchNorm2d(3))
    inputs = toys.noise(50, (3, 4, 4)) * 5 + 2
    number_formats.calibrate_batch_norm(model, inputs)
    torch.testing.assert_close(model[0].running_mean, inputs.mean((0, 2, 3)))
    torch.testing.assert_close(model[0].running_var, inputs.var((0, 2, 3)))
    assert not model.training


def test_a_batch_predicted_to_take_too_long_is_not_run():
    model = nn.Module()
    model.forward = lambda batch: pytest.fail("it was run")
    found = number_formats.timed(model, toys.noise(4), threads=1, seconds=0.01, per_image=1000.0)
    assert found.latency is None
    assert found.peak_memory is None
    assert found.note.startswith("not run: one call would take about 2000 s")
    assert "0.01 s" in found.note


@pytest.mark.parametrize("per_image", [None, 1e-9])
def test_a_batch_that_fits_is_timed(per_image):
    found = number_formats.timed(
        toys.convnet().eval(), toys.noise(2), threads=1, seconds=0.05, per_image=per_image
    )
    assert found.latency.median > 0
    assert found.latency.runs > 1
    assert found.note == ""


def test_a_call_that_fills_the_box_says_so():
    found = number_formats.timed(
        toys.convnet().eval(), toys.noise(2), threads=1, seconds=1e-9, per_image=None
    )
    assert found.latency.runs == 1
    assert "no spread" in found.note


def test_every_format_and_batch_size_has_its_row():
    rows = benched(unlabelled(), seconds=0.1)  # a busy machine fits no call into less
    assert [(row.dtype, row.batch_size) for row in rows] == [
        (dtype, size) for dtype in ALL for size in (1, 4)
    ]
    for row in rows:
        assert (row.network, row.device, row.image_shape) == ("toy", "cpu", "1×8×8")
        assert row.parameters == counting.parameters(toys.convnet())
        assert row.latency_ms > 0
        assert row.latency_iqr_ms >= 0
        assert row.runs >= 1
        assert row.threads == 1
        assert row.peak_memory_bytes is None
        assert row.accuracy is None


def test_latencies_are_in_milliseconds_for_the_whole_batch():
    class Sleeper(nn.Linear):
        def forward(self, batch):
            time.sleep(0.01)
            return super().forward(batch.flatten(1))

    subject = unlabelled(model=Sleeper(64, 3), inputs=toys.noise(4))
    for row in benched(subject, dtypes=["float32"], seconds=0.02):
        assert row.latency_ms > 9


def test_float32_agrees_with_itself():
    (row,) = benched(unlabelled(), dtypes=["float32"], batch_sizes=[1])
    assert row.agreement == 1
    assert 1 <= row.agreement_images <= 6


@pytest.mark.parametrize(("dtype", "share"), [("float16", 1.0), ("bfloat16", 0.5)])
def test_agreement_is_with_float32_whether_or_not_that_is_asked_for(dtype, share):
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = torch.eye(2)
    # bfloat16 cannot tell 1 from 1.001, and the first of equals wins.
    inputs = torch.tensor([[1.0, 1.001], [1.0, 2.0]] * 4).view(8, 2, 1, 1)
    (row,) = benched(
        unlabelled(model=model, inputs=inputs),
        dtypes=[dtype],
        batch_sizes=[1],
        agreement_images=8,
        seconds=0.1,
    )
    assert (row.dtype, row.agreement, row.agreement_images) == (dtype, share, 8)


def test_only_the_formats_asked_for_get_rows_in_any_order():
    rows = benched(unlabelled(), dtypes=["bfloat16", "float32"], batch_sizes=[2])
    assert sorted(row.dtype for row in rows) == ["bfloat16", "float32"]


def test_labelled_samples_give_an_accuracy_instead_of_an_agreement():
    samples = toys.halves(20)
    subject = unlabelled(samples=samples, inputs=samples.normalize(samples.images))
    rows = benched(subject, batch_sizes=[1])
    assert rows[0].accuracy == inference.accuracy(subject.model, samples)
    assert all(0 <= row.accuracy <= 1 for row in rows)
    assert all(row.agreement is None and row.agreement_images is None for row in rows)


def test_without_cuda_its_rows_say_so(no_cuda):
    rows = benched(unlabelled(), devices=["cpu", "cuda"], dtypes=["float32", "bfloat16"])
    missing = [row for row in rows if row.device == "cuda"]
    assert [(row.dtype, row.batch_size) for row in missing] == [
        (dtype, size) for dtype in ("float32", "bfloat16") for size in (1, 4)
    ]
    for row in missing:
        assert row.note == "no CUDA device"
        assert row.latency_ms is None
        assert row.accuracy is None
        assert row.agreement is None
        assert row.runs == 0
        assert row.bytes_on_disk > 0
    assert all(row.latency_ms for row in rows if row.device == "cpu")


def test_without_cuda_no_format_gets_a_row_that_was_not_asked_for(no_cuda):
    rows = benched(unlabelled(), devices=["cuda"], dtypes=["float16"], batch_sizes=[1])
    assert [(row.device, row.dtype) for row in rows] == [("cuda", "float16")]


def test_halved_bytes_are_in_the_rows():
    rows = benched(unlabelled(model=toys.lived_in(toys.convnet(16))), batch_sizes=[1])
    sizes = {row.dtype: row.bytes_on_disk for row in rows}
    for dtype in ("float16", "bfloat16"):
        assert 0.45 < sizes[dtype] / sizes["float32"] < 0.55


def test_a_subjects_note_is_on_every_row_that_was_measured():
    rows = benched(unlabelled(note="random weights"), batch_sizes=[1])
    assert all(row.note.endswith("random weights") for row in rows)


def test_the_benched_network_is_not_changed():
    subject = unlabelled()
    before = copy.deepcopy(subject.model)
    benched(subject)
    assert toys.same_state(subject.model, before)
