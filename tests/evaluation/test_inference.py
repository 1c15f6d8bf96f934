import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stages.lib.core.prepared import Dataset, Part
from stages.lib.evaluation import counting, inference
from stages.lib.evaluation import samples as on_device
from stages.lib.evaluation.evaluator import Evaluator
from stages.lib.evaluation.images import Normalize
from stages.lib.models import checkpoints, prunable
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.training import loop
from tests import toys

CPU = torch.device("cpu")


class Reader(nn.Module):
    """Predicts the value of an image's only pixel as its class."""

    def __init__(self, classes=10):
        super().__init__()
        self.classes = nn.Parameter(torch.arange(classes) / 255)

    def forward(self, images):
        assert not self.training
        return -(images.flatten(1) - self.classes).abs()


def pixels(values, labels=None):
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
    return toys.samples(images, torch.tensor(values if labels is None else labels))


def test_predictions_are_in_the_order_of_the_samples_in_batches_of_any_size(monkeypatch):
    monkeypatch.setattr(on_device, "BATCH", 4)
    values = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    found = inference.predict(Reader(), pixels(values))
    assert found.tolist() == values
    model, samples = toys.lived_in(toys.convnet()), toys.halves(20)
    expected = inference.predict(model, samples)
    monkeypatch.setattr(on_device, "BATCH", 3)
    assert torch.equal(inference.predict(model, samples), expected)


@pytest.mark.parametrize(("classes", "known"), [(19, False), (20, True)])
def test_a_row_has_top5_from_twenty_classes_up(classes, known):
    # The five classes nearest to 10 are 8 to 12.
    samples = pixels([10, 10, 10], [10, 8, 13])
    data = on_device.Data(samples, samples, samples, list(map(str, range(classes))), (1, 1, 1))
    row, _ = Evaluator(0, data, 1).row(Reader(classes), "baseline", bytes_on_disk=1)
    assert row.test_accuracy == pytest.approx(1 / 3, abs=1e-6)
    assert row.test_top5 == (pytest.approx(2 / 3, abs=1e-6) if known else None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_images_come_in_the_dtype_of_the_network(dtype):
    model, samples = toys.lived_in(toys.convnet()), toys.halves(20)
    expected = inference.predict(model, samples)
    found = inference.predict(model.to(dtype), samples)
    assert (found == expected).double().mean() > 0.9


def prepared(counts, pixel):
    """Prepared data of a class or two, all of one grey."""
    parts = [
        Part(np.full((count, 1, 2, 2), pixel, np.uint8), np.arange(count, dtype=np.int64) % 2)
        for count in counts
    ]
    return Dataset(*parts, ["no", "yes"], [0.2], [0.5], "checksum")


def test_a_data_set_comes_whole_and_normalized_onto_the_device():
    data = on_device.on_device(prepared((4, 3, 2), 51), CPU)
    parts = (data.train, data.validation, data.test)
    assert [len(samples.labels) for samples in parts] == [4, 3, 2]
    assert data.classes == ["no", "yes"]
    assert data.image_shape == (1, 2, 2)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    found = data.test.normalize(data.test.images)
    torch.testing.assert_close(found, torch.zeros(2, 1, 2, 2), atol=1e-6, rtol=0)
    other = on_device.on_device(prepared((1, 1, 1), 255), CPU, Normalize([0.0], [0.5], CPU))
    assert torch.equal(next(other.validation.batches()), torch.full((1, 1, 2, 2), 2.0))


@pytest.fixture
def evaluator():
    return Evaluator(5, toys.data(), counting.prunable_weights(toys.convnet()))


def test_a_row_holds_what_was_measured(evaluator):
    model = toys.lived_in(toys.convnet())
    weights = prunable.weights(model)
    total = sum(weight.numel() for weight in weights.values())
    pruned = masks.masked(model, masks.global_(magnitude.scores(model), 0.5))
    about = {"target_sparsity": 0.5, "extra_epochs": 3, "model": "a.safetensors"}
    row, predicted = evaluator.row(pruned, "global", **about)
    assert (row.seed, row.method, row.layer, row.weight_bits) == (5, "global", ".all", 32)
    assert about == {name: getattr(row, name) for name in about}
    assert row.sparsity == round(round(0.5 * total) / total, 6)
    assert row.parameters == counting.parameters(model)
    assert row.parameters - row.nonzero_parameters == round(0.5 * total)
    assert row.macs == counting.macs(pruned, (1, 8, 8))
    for part in ("test", "validation"):
        samples = getattr(evaluator.data, part)
        classes = getattr(predicted, part)
        assert torch.equal(classes, inference.predict(pruned, samples))
        right = int((classes == samples.labels).sum())
        assert getattr(row, f"{part}_accuracy") == round(right / len(samples.labels), 6)


def test_bytes_are_the_float32_files_and_sparsity_is_of_the_baseline(evaluator, tmp_path):
    model = toys.convnet()
    size = checkpoints.save_model(model, tmp_path / "model.safetensors")
    row, _ = evaluator.row(model, "baseline")
    assert (row.bytes_on_disk, row.sparsity, row.model) == (size, 0, "")
    assert evaluator.row(model, "int8", bytes_on_disk=123)[0].bytes_on_disk == 123
    small = toys.lived_in(toys.convnet(2))
    left = counting.prunable_weights(small) / evaluator.baseline_weights
    assert evaluator.row(small, "structured_layer")[0].sparsity == round(1 - left, 6)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 40), st.integers(1, 40))
@toys.few_examples
def test_batches_hold_every_image_once_in_order(count, batch, height, width):
    values = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    samples = toys.samples(values.expand(-1, 1, height, width), torch.zeros(count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_device, "BATCH", batch)
        parts = list(samples.batches())
        size = samples.batch_size
        assert 1 <= size <= batch
        # No more pixels at a time than a batch of small images has, if it is not one image.
        assert size == 1 or size * height * width <= batch * on_device.PIXELS
        assert size == batch or (size + 1) * height * width > batch * on_device.PIXELS
        assert len(parts) == samples.batch_count
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    found = (torch.cat(parts)[:, 0, 0, 0] * 255).round().long().tolist()
    assert found == list(range(count))


@pytest.mark.filterwarnings("error")
def test_on_a_cpu_the_images_are_the_file_itself_and_are_never_written(tmp_path):
    def part(name, count):
        images = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), np.uint8)
        np.save(tmp_path / f"{name}.npy", images)
        mapped = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        return Part(mapped, np.arange(count, dtype=np.int64) % 3)

    parts = [part(name, count) for name, count in (("train", 12), ("validation", 6), ("test", 6))]
    dataset = Dataset(*parts, ["a", "b", "c"], [0.5], [0.25], "checksum")
    before = [(tmp_path / f"{name}.npy").read_bytes() for name in ("train", "validation", "test")]
    data = on_device.on_device(dataset, CPU)
    for found, given_part in zip((data.train, data.validation, data.test), parts, strict=True):
        assert found.images.data_ptr() == given_part.images.ctypes.data
    params = toys.training_params(shift=1, mirror=True)
    loop.fit(toys.convnet(), data, params, epochs=1, learning_rate=0.1, generator=torch.Generator())
    inference.accuracy(toys.convnet(), data.test)
    after = [(tmp_path / f"{name}.npy").read_bytes() for name in ("train", "validation", "test")]
    assert after == before
