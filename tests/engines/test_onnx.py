"""ONNX files: torch's answers, the same bytes each time, and int8 that is what it says."""

import copy
import hashlib
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
from onnx import numpy_helper
from torch import nn
from torchvision.models import DenseNet, VisionTransformer

from stages.lib.core import hardware
from stages.lib.core.errors import UserError
from stages.lib.engines import calibration, onnx_export, onnx_int8, onnx_session
from stages.lib.engines.onnx_runtime import onnxruntime
from stages.lib.evaluation import images
from stages.lib.evaluation.samples import Samples
from stages.lib.models import prunable, registry
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.structured import analysis, ranking, removal
from stages.lib.training import loop
from tests import families, toys

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CLASSES = ["above", "below", "dark"]
NETWORK = (1, 8, 8)


def samples(count, shape=NETWORK, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    channels = shape[0]
    normalize = images.Normalize([0.4, 0.5, 0.6][:channels], [0.2, 0.3, 0.25][:channels], CPU)
    return Samples(pixels, torch.zeros(count).long(), normalize)


def exported(model, shape=NETWORK, classes=CLASSES, **about):
    return onnx_export.export(model, samples(5, shape), classes, about)


def compared(model, file, shape=NETWORK, count=7):
    """torch and ONNX Runtime, on as many images as the exporter never saw at once."""
    given = samples(count, shape)
    logits = onnx_session.logits(onnx_session.session(file, 1), given.images, 100)
    return onnx_export.compare(onnx_export.torch_logits(model, given), logits)


def int8(file, bits=8, method="minmax", given=None):
    observed = onnx_int8.observe(file, samples(32, seed=1).images if given is None else given, 1)
    choose = calibration.method(method, 99.9)
    ranges = {name: choose(values) for name, values in observed.items()}
    return onnx_int8.quantize(file, ranges, bits, {"weight_bits": bits})


def weights(file):
    """The quantized weights of convolutions and linear layers, int8, by name."""
    tensors = {
        value.name: numpy_helper.to_array(value)
        for value in onnx.load_from_string(file).graph.initializer
    }
    levels = {
        name: value for name, value in tensors.items() if value.dtype == np.int8 and value.ndim > 1
    }
    return tensors, levels


def operators(file):
    return [node.op_type for node in onnx.load_from_string(file).graph.node]


@pytest.fixture(scope="module")
def trained():
    """A network that tells the three classes of the toy set apart, and the set."""
    data = toys.data(train=120, validation=60, test=60)
    generator = torch.Generator().manual_seed(0)
    model, _ = loop.fit(
        toys.convnet(8), data, toys.recipe(), epochs=6, learning_rate=0.05, generator=generator
    )
    return model, data


@pytest.fixture(scope="module")
def file(trained):
    model, data = trained
    return onnx_export.export(model, data.test, CLASSES, {})


class HandMade(nn.Module):
    """What constants in a graph come from: scaled branches, a gate, activations by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.linear = nn.Linear(4, 3)

    def forward(self, given):
        first = self.first(nn.functional.pad(given, (1, 1, 1, 1))).relu()
        first = first + 0.5 * self.second(first)
        gate = nn.functional.relu6(first + 3) / 6
        return self.linear((first * gate * (1 - gate)).mean((2, 3)))


def tiny_vit():
    torch.manual_seed(0)
    return VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)


def tiny_densenet():
    torch.manual_seed(0)
    return DenseNet(8, (2, 2), 16, num_classes=3)


def small(scope):
    model = toys.lived_in(toys.convnet(8))
    plan = analysis.analyse(model, NETWORK)
    return removal.remove(model, plan, ranking.choose(model, plan, 0.5, scope))


NETWORKS = {
    "convnet": (toys.convnet, NETWORK),
    "convnet in colour": (lambda: toys.convnet(in_channels=3), (3, 12, 8)),
    "resnet20": (
        lambda: registry.build_seeded(registry.architecture("resnet20", 4, 3, 3), 0), (3, 16, 16),
    ),
    "hand-made": (HandMade, NETWORK),
    "vit": (tiny_vit, (3, 32, 32)),
    "densenet": (tiny_densenet, (3, 32, 32)),
    **{f"{scope}, fewer filters": (lambda scope=scope: small(scope), NETWORK)
       for scope in ("layer", "global")},
    **{
        name: (lambda name=name: families.build(name), families.shape(name))
        for name in ("mobilenet_v3_small", "efficientnet_b0")
    },
}  # fmt: skip
# Every tensor costs a name and a scale: more than the weights of a toy.
LARGE = ("resnet20", "mobilenet_v3_small")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_and_its_int8_answer_as_torch_does(name):
    build, shape = NETWORKS[name]
    model = toys.lived_in(build()).train()
    before = copy.deepcopy(model)
    given = exported(model, shape)
    assert model.training
    assert toys.same_state(model.eval(), before)
    agreement = compared(model, given, shape)
    assert agreement.difference < 1e-4
    assert agreement.agreement == 1
    assert agreement.images == 7
    onnx.checker.check_model(onnx.load_from_string(given), full_check=True)
    if name == "efficientnet_b0":  # as deep as another is, and random weights in int8 say little
        return
    quantized = int8(given, given=samples(16, shape).images)
    agreement = compared(model, quantized, shape, count=16)
    assert 0 < agreement.difference < 0.6 * agreement.largest
    assert name not in LARGE or len(quantized) < 0.6 * len(given)


def test_batch_norm_is_folded_and_any_number_of_raw_images_is_read(file):
    found = operators(file)
    assert not {"BatchNormalization", "Constant"} & set(found)
    assert found[:3] == ["Cast", "Mul", "Add"]
    graph = onnx.load_from_string(file).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "logits"]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    for value in (graph.input[0], graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "n"
    session = onnx_session.session(file, 1)
    for count in (1, 2, 5):
        answers = session.run(None, {"images": samples(count).images.numpy()})[0]
        assert answers.shape == (count, 3)
        assert answers.dtype == np.float32


HOSTILE = ["a\nb", '"quoted" \\ back', "\0", "été 日本 🦊", "\udcff", "x" * 5000, "</script>", ""]


def test_hostile_class_names_come_back():
    file = exported(toys.convnet(classes=len(HOSTILE)), classes=HOSTILE, kind="toy")
    stored = onnx_session.session(file, 1).get_modelmeta().custom_metadata_map
    assert json.loads(stored["classes"]) == HOSTILE
    assert json.loads(stored["about"])["kind"] == "toy"
    assert "0…255" in json.loads(stored["about"])["input"]
    assert onnx_export.metadata(file)["classes"] == HOSTILE


def digests():
    """Of a file and its int8 file."""
    given = toys.halves(40)
    file = onnx_export.export(toys.lived_in(toys.convnet(8)), given, CLASSES, {})
    files = file, int8(file, method="entropy", given=given.images)
    return [hashlib.sha256(one).hexdigest() for one in files]


def test_the_same_network_gives_the_same_bytes_in_a_fresh_process(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", "from tests.engines import test_onnx; print(test_onnx.digests())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "2", "TMPDIR": str(tmp_path), "TZ": "Asia/Tokyo"},
    )  # fmt: skip
    assert told.stdout == f"{digests()}\n"
    # Nor does ONNX Runtime leave the mark of its telemetry.
    assert not list(tmp_path.iterdir()), "a temporary file is left"


def test_no_path_and_no_trace_of_the_exporter_is_inside(file):
    for one in (file, int8(file)):
        for word in ("site-packages", ".py", "pytorch", "onnx.quantize"):
            assert word.encode() not in one
        assert not any(str(place).encode() in one for place in (ROOT, tempfile.gettempdir()))
        proto = onnx.load_from_string(one)
        assert {entry.key for entry in proto.metadata_props} == {"classes", "about"}
        assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


class OfTheBatch(nn.Module):
    """Tracing takes the size of its batch for a constant."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, given):
        return self.linear(given.flatten(1)) * len(given)


class OfTheImage(OfTheBatch):
    """Tracing takes the branch of the images that it sees."""

    def forward(self, given):
        logits = self.linear(given.flatten(1))
        return logits if given.mean() > 0 else -logits


def fails(network, images):
    raise RuntimeError("beyond this one too\nand more")


@pytest.mark.parametrize("model", [OfTheBatch(), OfTheImage()], ids=["batch", "branch"])
def test_what_tracing_gets_wrong_is_found_and_refused(monkeypatch, model):
    monkeypatch.setattr(onnx_export, "_captured", fails)
    given = samples(30)
    given.images[10:] //= 9
    with pytest.raises(UserError, match="cannot be exported to ONNX") as error:
        onnx_export.export(model, given, CLASSES, {})
    assert "\n" not in str(error.value)


def test_what_tracing_cannot_follow_is_captured(monkeypatch):
    monkeypatch.setattr(onnx_export, "_traced", fails)
    model = toys.lived_in(toys.convnet())
    given = exported(model)
    assert compared(model, given).difference < 1e-4
    assert str(ROOT).encode() not in given
    assert "BatchNormalization" not in operators(given)
    assert compared(model, int8(given)).difference > 0


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


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("bits", [7, 8])
def test_int8_of_a_trained_network_answers_as_it_and_says_nothing(
    trained, file, capfd, method, bits
):
    model, data = trained
    small = int8(file, bits, method, data.train.images)
    logits = onnx_session.logits(onnx_session.session(small, 1), data.test.images, 100)
    agreement = onnx_export.compare(onnx_export.torch_logits(model, data.test), logits)
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
    tensors, levels = weights(int8(onnx_export.export(pruned, data.test, CLASSES, {}), bits))
    pairs = zip(
        sorted(levels.items(), key=lambda item: item[1].size),
        sorted(prunable.weights(pruned).values(), key=torch.Tensor.numel),
        strict=True,
    )
    for (name, quantized), weight in pairs:
        scale, zero_point = (
            tensors[name.removesuffix("quantized") + part] for part in ("scale", "zero_point")
        )
        assert scale.size in quantized.shape
        assert scale.size > 1
        assert not zero_point.any()
        # Symmetric: the largest weight is the largest level.
        assert np.abs(quantized.astype(int)).max() == most
        if quantized.ndim == 4:  # The first convolution has more channels; test_onnx_pixels.py.
            quantized = quantized[:, : weight.shape[1]]
        # Linear layers are stored as [in, out] or [out, in].
        zeros = (weight == 0).numpy()
        zeros = zeros if zeros.shape == quantized.shape else zeros.T
        assert not quantized[zeros].any()
        assert (quantized == 0).mean() >= zeros.mean() > 0.1


def test_convolutions_and_linear_layers_run_in_integers(file):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as directory:
        options.optimized_model_filepath = str(Path(directory) / "optimized")
        onnxruntime.InferenceSession(int8(file), options, providers=["CPUExecutionProvider"])
        optimized = Path(options.optimized_model_filepath).read_bytes()
    found = operators(optimized)
    assert found.count("QLinearConv") == 6
    assert found.count("QGemm") == 2
    assert not {"Conv", "FusedConv", "Gemm"} & set(found)


def test_what_the_tools_cannot_quantize_is_told_in_a_line(file):
    with pytest.raises(UserError, match=r"^the network cannot be quantized ") as error:
        onnx_int8.quantize(file, {}, 8, {})
    assert "\n" not in str(error.value)


def test_observed_ranges_are_those_of_the_values(file):
    given = samples(40, seed=3).images
    observed = onnx_int8.observe(file, given, 1)
    logits = onnx_session.logits(onnx_session.session(file, 1), given, 100)
    assert observed["logits"].low == pytest.approx(float(logits.min()), rel=1e-5)
    assert observed["logits"].high == pytest.approx(float(logits.max()), rel=1e-5)
    assert observed["logits"].counts.sum() == logits.numel()
    assert all(values.low <= values.high for values in observed.values())


@pytest.mark.parametrize(
    ("machine", "isa", "bits"),
    [
        ("x86_64", ["avx2", "fma"], 7),
        ("x86_64", ["avx2", "avx512f", "avx512bw", "avx512_bf16"], 7),
        ("x86_64", ["avx2", "avx512f", "avx512_vnni"], 8),
        ("x86_64", ["avx2", "avx_vnni"], 8),
        ("x86_64", ["avx2", "avx512f", "amx_int8", "amx_tile"], 8),
        ("AMD64", [], 7),
        ("aarch64", ["asimd"], 8),
        ("arm64", ["i8mm", "dotprod"], 8),
    ],
)
def test_seven_bits_where_sums_of_eight_would_saturate(machine, isa, bits):
    about = {"machine": machine, "isa": isa}
    assert [onnx_int8.weight_bits(wanted, about) for wanted in ("auto", 7, 8)] == [bits, 7, 8]
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 127


def test_the_isa_that_kernels_choose_by_is_named_in_one_order():
    isa = ["amx_tile", "avx", "avx512_vnni", "avx2", "fma"]
    assert hardware.kernel_isa(isa) == "avx2 avx512_vnni"
    assert hardware.kernel_isa([]) == ""
