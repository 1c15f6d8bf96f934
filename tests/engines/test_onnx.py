"""ONNX files: torch's answers, the same bytes each time, and int8 that is what it says."""

import copy
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torchvision.models import DenseNet, VisionTransformer

from stages.lib.core.errors import UserError
from stages.lib.engines import onnx_export, onnx_int8, onnx_pixels, onnx_session
from stages.lib.engines.onnx_runtime import onnxruntime
from stages.lib.models import prunable
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.training import loop
from tests import families, onnx_toys, toys
from tests.onnx_toys import answers, compared, int8, operators, samples

ROOT = Path(__file__).parents[2]
CLASSES = ["above", "below", "dark"]
NETWORK = (1, 8, 8)


def exported(model, shape=NETWORK, classes=CLASSES, **about):
    return onnx_export.export(model, samples(5, shape), classes, about)


@pytest.fixture(scope="module")
def trained():
    """A network that tells the three classes of the toy set apart, and the set."""
    data = toys.data(train=120, validation=60, test=60)
    training = {"epochs": 6, "learning_rate": 0.05, "generator": torch.Generator().manual_seed(0)}
    return loop.fit(toys.convnet(8), data, toys.training_params(), **training)[0], data


@pytest.fixture(scope="module")
def file(trained):
    model, data = trained
    return onnx_export.export(model, data.test, CLASSES, {})


# In others, a name and a scale for every tensor cost more than the weights.
LARGE = "mobilenet_v3_small"
NETWORKS = {
    "convnet in colour": (lambda: toys.convnet(in_channels=3), (3, 12, 8)),
    "vit": (lambda: VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3), (3, 32, 32)),
    "densenet": (lambda: DenseNet(8, (2, 2), 16, num_classes=3), (3, 32, 32)),
    LARGE: (lambda: families.build(LARGE), families.shape(LARGE)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_and_its_int8_answer_as_torch_does(name):
    build, shape = NETWORKS[name]
    model = toys.lived_in(build()).train()
    before = copy.deepcopy(model)
    given = exported(model, shape)
    assert model.training
    assert toys.same_state(model.eval(), before)
    agreement = compared(model, given, samples(7, shape))
    assert agreement.difference < 1e-4
    assert agreement.agreement == 1
    assert agreement.images == 7
    onnx.checker.check_model(onnx.load_from_string(given), full_check=True)
    quantized = int8(given, samples(16, shape).images)
    agreement = compared(model, quantized, samples(16, shape))
    assert 0 < agreement.difference < 0.6 * agreement.largest
    assert name != LARGE or len(quantized) < 0.6 * len(given)


def test_batch_norm_is_folded_and_any_number_of_raw_images_is_read(file):
    found = operators(file)
    assert not {"BatchNormalization", "Constant"} & set(found)
    assert found[:3] == ["Cast", "Mul", "Add"]
    for count in (1, 5):
        logits = answers(file, samples(count))
        assert logits.shape == (count, 3)
        assert logits.dtype == torch.float32


HOSTILE = ["a\nb", '"quoted" \\ back', "\0", "été 日本 🦊", "\udcff", "x" * 5000, "</script>", ""]


def test_hostile_class_names_come_back():
    file = exported(toys.convnet(classes=len(HOSTILE)), classes=HOSTILE, kind="toy")
    stored = onnx_session.session(file, 1).get_modelmeta().custom_metadata_map
    assert json.loads(stored["classes"]) == HOSTILE
    assert json.loads(stored["about"])["kind"] == "toy"
    assert "0…255" in json.loads(stored["about"])["input"]
    assert onnx_export.metadata(file)["classes"] == HOSTILE


def test_the_same_network_gives_the_same_bytes_in_a_fresh_process(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", "from tests import onnx_toys; print(onnx_toys.digests())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "2", "TMPDIR": str(tmp_path), "TZ": "Asia/Tokyo"},
    )  # fmt: skip
    assert told.stdout == f"{onnx_toys.digests()}\n"
    # Nor does ONNX Runtime leave the mark of its telemetry.
    assert not list(tmp_path.iterdir()), "a temporary file is left"


def test_no_path_and_no_trace_of_the_exporter_is_inside(file):
    for one in (file, int8(file, samples(9).images)):
        for word in ("site-packages", ".py", "pytorch", "onnx.quantize"):
            assert word.encode() not in one
        assert not any(str(place).encode() in one for place in (ROOT, tempfile.gettempdir()))
        proto = onnx.load_from_string(one)
        keys = {entry.key for entry in proto.metadata_props}
        assert keys == {"classes", "about", "preprocessing"}
        assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


def fails(network, images):
    raise RuntimeError("beyond this one too\nand more")


@pytest.mark.parametrize(
    "factor", [len, lambda given: 1 if given.mean() > 0 else -1], ids=["batch size", "branch"]
)
def test_what_tracing_takes_for_a_constant_is_found_and_refused(monkeypatch, factor):
    def answer(net, given):
        return net.fc(given.flatten(1)) * factor(given)

    monkeypatch.setattr(onnx_export, "_captured", fails)
    given = samples(30)
    given.images[10:] //= 9
    with pytest.raises(UserError, match="cannot be exported to ONNX") as error:
        onnx_export.export(toys.Net(answer, fc=nn.Linear(64, 3)), given, CLASSES, {})
    assert "\n" not in str(error.value)


def test_a_batch_of_fixed_size_is_told_with_its_remedy():
    network = toys.Net(lambda net, x: net.fc(x.view(len(x), -1)), fc=nn.Linear(64, 3))
    with pytest.raises(UserError, match=r"write x\.shape\[0\], not len\(x\)"):
        onnx_export.export(network, samples(30), CLASSES, {})


def test_torchs_transformer_layer_is_exported_and_nothing_is_printed(capsys):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = toys.Net(
        lambda net, x: net.fc(net.encoder(x[:, 0]).mean(1)),
        encoder=nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), fc=nn.Linear(8, 3),
    ).eval()  # fmt: skip
    given = exported(network)
    assert compared(network, given, samples(7)).difference < 1e-4
    assert torch.backends.mha.get_fastpath_enabled()
    assert capsys.readouterr() == ("", "")


def test_layers_with_equal_biases_become_int8():
    """The exporter stores one of them, and the others as Identity nodes."""
    model = toys.convnet()
    given = exported(model)
    assert "Identity" not in operators(given)
    assert operators(int8(given, samples(9).images)).count("DequantizeLinear") > 8


def test_a_network_that_is_refused_as_a_whole_becomes_int8_in_its_layers(file, monkeypatch):
    tried, whole = [], onnx_int8._quantized

    def fragile(*arguments):
        tried.append(arguments[-1])
        if "Relu" in arguments[-1]:
            raise ValueError("Relu")
        return whole(*arguments)

    monkeypatch.setattr(onnx_int8, "_quantized", fragile)
    found = operators(int8(file, samples(9).images))
    assert tried == [onnx_int8.INTEGER_OPERATORS, onnx_int8.WITH_WEIGHTS]
    assert found.count("DequantizeLinear") > 8


def test_what_tracing_cannot_follow_is_captured(monkeypatch):
    monkeypatch.setattr(onnx_export, "_traced", fails)
    model = toys.lived_in(toys.convnet())
    given = exported(model)
    assert compared(model, given, samples(7)).difference < 1e-4
    assert str(ROOT).encode() not in given
    assert "BatchNormalization" not in operators(given)
    assert compared(model, int8(given, samples(9).images), samples(7)).difference > 0


@pytest.mark.parametrize("broken", [b"", b"garbage", "half"])
def test_what_is_no_network_is_refused_by_name(file, broken):
    broken = file[: len(file) // 2] if broken == "half" else broken
    with pytest.raises(UserError, match=r"^mine\.onnx: ONNX Runtime cannot load it") as error:
        onnx_session.session(broken, 1, name="mine.onnx")
    assert "\n" not in str(error.value)


def test_compare_of_known_logits():
    one = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    other = torch.tensor([[1.5, 1.0], [3.0, -4.0]])
    assert onnx_export.compare(one, other) == (1.0, 4.0, 0.5, 2)
    assert not onnx_export.compare(one, other).is_same
    assert onnx_export.compare(one, one + 1e-4).is_same


@pytest.mark.parametrize("classes", [3, 20])
def test_predictions_have_a_top5_where_there_are_classes_enough(classes):
    data = replace(toys.data(), classes=[str(index) for index in range(classes)])
    logits = torch.zeros(12, classes)
    logits[range(12), data.test.labels] = 1
    predicted = onnx_session.predictions(torch.zeros(15, classes), logits, data)
    assert torch.equal(predicted.test, data.test.labels)
    assert predicted.test_top5 == (None if classes == 3 else 1.0)


# int8


@pytest.mark.parametrize(("method", "bits"), [("minmax", 8), ("entropy", 7), ("percentile", 8)])
def test_int8_of_a_trained_network_answers_as_it_and_says_nothing(
    trained, file, capfd, method, bits
):
    model, data = trained
    small = int8(file, data.train.images, bits, method)
    logits, agreement = answers(small, data.test), compared(model, small, data.test)
    assert agreement.agreement >= 0.95
    assert agreement.difference < 0.2 * agreement.largest
    assert (logits.argmax(1) == data.test.labels).double().mean() >= 0.95
    # Logits are not rounded to levels, of which 180 numbers would share few.
    assert len(logits.unique()) > 100
    assert onnx_export.metadata(small)["about"]["weight_bits"] == bits
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("bits", "most"), [(7, 64), (8, 127)])
def test_weights_have_a_scale_per_channel_no_zero_point_and_their_zeros(trained, bits, most):
    model, data = trained
    pruned = masks.masked(model, masks.global_(magnitude.scores(model), 0.8))
    small = int8(onnx_export.export(pruned, data.test, CLASSES, {}), data.train.images, bits)
    tensors = onnx_pixels.constants(onnx.load_from_string(small).graph)
    levels = {name: one for name, one in tensors.items() if one.dtype == np.int8 and one.ndim > 1}
    assert len(levels) == len(prunable.weights(pruned))
    for name, quantized in levels.items():
        scale, zero_point = (
            tensors[name.removesuffix("quantized") + part] for part in ("scale", "zero_point")
        )
        assert scale.size in quantized.shape
        assert scale.size > 1
        # So zeros stay zeros, and the largest weight is the largest level.
        assert not zero_point.any()
        assert np.abs(quantized.astype(int)).max() == most
    assert np.mean(np.concatenate([one.ravel() == 0 for one in levels.values()])) >= 0.8


def test_convolutions_and_linear_layers_run_in_integers(file, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized")
    onnxruntime.InferenceSession(
        int8(file, samples(9).images), options, providers=["CPUExecutionProvider"]
    )
    found = operators((tmp_path / "optimized").read_bytes())
    assert found.count("QLinearConv") == 6
    assert found.count("QGemm") == 2
    assert not {"Conv", "FusedConv", "Gemm"} & set(found)


def test_what_the_tools_cannot_quantize_is_told_in_a_line(file):
    with pytest.raises(UserError, match=r"^the network cannot be quantized ") as error:
        onnx_int8.quantize(file, {}, 8, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("machine", "isa", "bits"),
    [
        ("x86_64", ["avx2", "avx512f", "avx512bw", "avx512_bf16"], 7),
        ("x86_64", ["avx2", "avx512f", "avx512_vnni"], 8),
        ("x86_64", ["avx2", "avx_vnni"], 8),
        ("x86_64", ["avx2", "avx512f", "amx_int8", "amx_tile"], 8),
        ("AMD64", [], 7),
        ("aarch64", ["asimd"], 8),
    ],
)
def test_seven_bits_where_sums_of_eight_would_saturate(machine, isa, bits):
    about = {"machine": machine, "isa": isa}
    assert [onnx_int8.weight_bits(wanted, about) for wanted in ("auto", 7, 8)] == [bits, 7, 8]
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 127
