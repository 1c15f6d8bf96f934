"""predict.py sees of a photo what the pipeline saw, and tells whether its answers are right."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from stages.lib.core import outputs
from stages.lib.data import decoding
from stages.lib.deploy import predict, sample
from stages.lib.engines import onnx_export
from tests import onnx_toys, toys

CLASSES = ["above", "below", "dark"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("photos")


@given(
    st.sampled_from(["L", "RGB", "CMYK", "P", "RGBA", "LA", "1"]),
    st.tuples(st.integers(5, 90), st.integers(5, 90)),
    st.integers(1, 8),
    st.sampled_from([8, 16, 33]),
    st.sampled_from(["L", "RGB"]),
    st.integers(0, 2**16),
)
@toys.few_examples
def test_any_photo_gives_the_pixels_of_the_pipeline(
    place, mode, size, orientation, target, wanted, seed
):
    """Whatever its colours, its size and how the camera was held."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    image = Image.fromarray(coarse, "RGBA").resize(size, Image.Resampling.BICUBIC)
    image = image.convert("RGB" if mode == "CMYK" else image.mode).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = place / ("x.jpg" if mode in ("L", "RGB", "CMYK") else "x.png")
    image.save(file, exif=exif)
    found = predict.pixels(file, (target, target), wanted)
    np.testing.assert_array_equal(found, decoding.decode(file, target, wanted))


def test_a_large_jpeg_is_decoded_as_in_the_pipeline(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.jpg")
    found = predict.pixels(tmp_path / "x.jpg", (32, 32), "RGB")
    np.testing.assert_array_equal(found, decoding.decode(tmp_path / "x.jpg", 32, "RGB"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a network in colour, 12×8 pixels, and its sample."""
    given = onnx_toys.samples(20, (3, 12, 8))
    file = onnx_export.export(toys.lived_in(toys.convnet(in_channels=3)), given, CLASSES, {})
    (tmp_path / "fastest.onnx").write_bytes(file)
    labels = onnx_toys.answers(file, given).argmax(1).numpy()
    sample.write(tmp_path, {"fastest.onnx": False}, given.images.numpy(), labels)
    monkeypatch.setattr(predict, "HERE", tmp_path)
    return tmp_path


def test_a_photo_gets_its_label_with_its_probability(folder, capsys):
    photo = str(folder / "sample.jpg")
    assert predict.main([photo, photo]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    expected = json.loads((folder / "sample.json").read_text("utf-8"))
    logits = np.array(expected["logits"]["fastest.onnx"]["logits"])
    name, label, chance = first.split("\t")
    assert (name, label) == (photo, CLASSES[logits.argmax()]) == (photo, expected["label"])
    assert float(chance) == pytest.approx((np.exp(logits) / np.exp(logits).sum()).max(), abs=1e-4)


def test_the_sample_must_be_turned_resized_and_cropped(folder):
    """What is done wrong changes the pixels by more than is allowed."""
    right = predict.pixels(folder / "sample.jpg", (12, 8), "RGB").astype(int)
    photo = Image.open(folder / "sample.jpg")
    plain = np.asarray(photo.resize((8, 12))).transpose(2, 0, 1).astype(int)
    for wrong in (plain, right[::-1], right[:, ::-1], right[:, :, ::-1]):
        assert np.abs(wrong - right).max() > sample.LEVELS


def changed(file, **values):
    content = json.loads(file.read_text("utf-8"))
    content["logits"]["fastest.onnx"] |= values
    outputs.write_json(file, content)


def test_the_check_finds_what_is_not_as_measured(folder, capsys):
    assert predict.main(["--check"]) == 0
    assert "fastest.onnx: as measured" in capsys.readouterr().out
    answers = json.loads((folder / "sample.json").read_text("utf-8"))
    logits = answers["logits"]["fastest.onnx"]["logits"]
    changed(folder / "sample.json", logits=[logits[0] + 0.1, *logits[1:]])
    assert predict.main(["--check"]) == 1
    assert "fastest.onnx: NOT as measured" in capsys.readouterr().out
    changed(folder / "sample.json", logits=logits)
    pixels = np.asarray(Image.open(folder / "sample.png"))
    Image.fromarray(pixels[::-1].copy()).save(folder / "sample.jpg", quality=100)
    assert predict.main(["--check"]) == 1
    assert "NOT as measured" in capsys.readouterr().out


def test_the_engine_is_that_of_the_card(folder, capsys):
    """OpenVINO answers as ONNX Runtime does, for any number of images."""
    pytest.importorskip("openvino")
    chosen = {"chosen": {"file": "fastest.onnx", "engine": "openvino"}}
    outputs.write_json(folder / "model_card.json", {"fastest": chosen, "smallest": None})
    network = predict.Network(folder / "fastest.onnx")
    other = predict.Network(folder / "fastest.onnx", engine="onnxruntime")
    assert (network.engine, other.engine) == ("openvino", "onnxruntime")
    for count in (1, 5, 1):
        images = onnx_toys.samples(count, (3, 12, 8), seed=count).images.numpy()
        np.testing.assert_allclose(network.logits(images), other.logits(images), atol=1e-4)
    for engine in ([], ["--engine", "onnxruntime"]):
        assert predict.main(["--check", *engine]) == 0
    assert "NOT" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing.jpg", "text.jpg", "torn.jpg", "deep.tif"])
def test_what_is_no_photo_gives_a_line(folder, capsys, name):
    (folder / "text.jpg").write_text("hello", encoding="utf-8")
    (folder / "torn.jpg").write_bytes((folder / "sample.jpg").read_bytes()[:-200])
    Image.new("F", (9, 9)).save(folder / "deep.tif")
    good = str(folder / "sample.jpg")
    assert predict.main([good, str(folder / name), good]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {folder / name}: ")
    assert told.err.count("\n") == 1
    # The other photos get their labels.
    assert told.out.count(good) == 2


def test_a_network_that_is_missing_or_torn_gives_a_line(folder, capsys):
    photo = str(folder / "sample.jpg")
    assert predict.main(["--model", str(folder / "other.onnx"), photo]) == 2
    (folder / "fastest.onnx").write_bytes((folder / "fastest.onnx").read_bytes()[:-100])
    assert predict.main([photo]) == 2
    (folder / "fastest.onnx").unlink()
    assert predict.main([photo]) == 2
    (folder / "smallest.packed").write_bytes(b"RBPK")
    assert predict.main(["--model", "smallest.packed", photo]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "see README.md" in lines[2]
    assert "unpack.py smallest.packed, then --model smallest.onnx" in lines[3]
