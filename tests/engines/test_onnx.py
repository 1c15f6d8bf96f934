"""ONNX files: torch's answers, the same bytes each time, and int8 that is what it says."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torchvision.models import VisionTransformer

from stages.lib.core import hardware
from stages.lib.core.errors import UserError
from stages.lib.engines import onnx_export, onnx_int8, onnx_session
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


def pixels(count, shape=(1, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)


def normalize(channels):
    return images.Normalize([0.4, 0.5, 0.6][:channels], [0.2, 0.3, 0.25][:channels], CPU)


def samples(count, shape):
    return Samples(pixels(count, shape), torch.zeros(count).long(), normalize(shape[0]))


def exported(model, shape=(1, 8, 8), classes=CLASSES, **about):
    return onnx_export.export(model, normalize(shape[0]), shape, classes, about)


def compared(model, file, shape=(1, 8, 8), count=7):
    """torch and ONNX Runtime, on as many images as the exporter never saw at once."""
    given = samples(count, shape)
    found = onnx_session.logits(onnx_session.session(file, 1), given)
    return onnx_export.compare(onnx_export.torch_logits(model, given), found)


def int8(file, bits=8, count=32, method="minmax", shape=(1, 8, 8)):
    seen = onnx_int8.observe(file, pixels(count, shape, seed=1).numpy(), 1)
    ranges = onnx_int8.ranges(seen, method, 99.9)
    return onnx_int8.quantize(file, ranges, bits, {"weight_bits": bits})


def weights(file):
    """The quantized weights of convolutions and linear layers, int8."""
    return [
        numpy_helper.to_array(one)
        for one in onnx.load_from_string(file).graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) > 1
    ]


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
    return onnx_export.export(model, data.test.normalize, (1, 8, 8), CLASSES, {})


def tiny_vit():
    torch.manual_seed(0)
    return toys.lived_in(VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3))


def resnet20():
    return toys.lived_in(registry.build_seeded(registry.architecture("resnet20", 4, 3, 3), 0))


NETWORKS = {
    "convnet": (lambda: toys.lived_in(toys.convnet()), (1, 8, 8)),
    "convnet in colour": (lambda: toys.lived_in(toys.convnet(in_channels=3)), (3, 12, 8)),
    "resnet20": (resnet20, (3, 16, 16)),
    "vit": (tiny_vit, (3, 32, 32)),
    **{
        name: (lambda name=name: families.build(name), families.shape(name))
        for name in ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "densenet121")
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_answers_as_torch_does(name):
    build, shape = NETWORKS[name]
    model = build()
    given = exported(model, shape)
    found = compared(model, given, shape)
    assert found.difference < 1e-4
    assert found.agreement == 1
    assert found.images == 7
    onnx.checker.check_model(onnx.load_from_string(given), full_check=True)


def test_one_image_and_many_are_answered(file):
    session = onnx_session.session(file, 1)
    for count in (1, 2, 5):
        answers = session.run(None, {"images": pixels(count).numpy()})[0]
        assert answers.shape == (count, 3)
        assert answers.dtype == np.float32


def test_batch_norm_is_folded_and_normalisation_is_inside(file):
    found = operators(file)
    assert "BatchNormalization" not in found
    assert found[:3] == ["Cast", "Mul", "Add"]
    graph = onnx.load_from_string(file).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "logits"]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "n"


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_networks_without_their_filters_are_exported_too(scope):
    model = toys.lived_in(toys.convnet(8))
    plan = analysis.analyse(model, (1, 8, 8))
    small = removal.remove(model, plan, ranking.choose(model, plan, 0.5, scope))
    given = exported(small)
    assert len(given) < 0.8 * len(exported(model))
    assert compared(small, given).difference < 1e-4


def test_a_network_is_left_as_it_was():
    model, untouched = toys.convnet().train(), toys.convnet()
    exported(model)
    assert model.training
    assert toys.same_state(model, untouched)


HOSTILE = ["a\nb", '"quoted" \\ back', "\0", "été 日本 🦊", "\udcff", "x" * 5000, "</script>", ""]


def test_hostile_class_names_come_back():
    file = exported(toys.convnet(classes=len(HOSTILE)), classes=HOSTILE, kind="toy")
    session = onnx_session.session(file, 1)
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == HOSTILE
    assert json.loads(found["about"])["kind"] == "toy"
    assert "0…255" in json.loads(found["about"])["input"]
    assert onnx_export.metadata(file)["classes"] == HOSTILE


PROGRAM = """
import hashlib, torch
from stages.lib import images, onnx_export, onnx_int8
from tests import toys
normalize = images.Normalize([0.4], [0.2], torch.device("cpu"))
model = toys.lived_in(toys.convnet(8))
file = onnx_export.export(model, normalize, (1, 8, 8), ["a", "b", "c"], {})
seen = onnx_int8.observe(file, toys.halves(40).images.numpy(), 1)
small = onnx_int8.quantize(file, onnx_int8.ranges(seen, "entropy", 99.9), 8, {})
print(*(hashlib.sha256(one).hexdigest() for one in (file, small)))
"""


def test_the_same_network_gives_the_same_bytes_in_fresh_processes(tmp_path):
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(tmp_path), "TZ": zone},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    told = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert told[0][0] == told[1][0]
    assert len(told[0][0].split()) == 2
    # Nor does ONNX Runtime leave the mark of its telemetry.
    assert not list(tmp_path.iterdir()), "a temporary file is left"


def test_no_path_and_no_trace_of_the_exporter_is_inside(file):
    for one in (file, int8(file)):
        for word in (
            str(ROOT),
            "site-packages",
            ".py",
            "pytorch",
            "onnx.quantize",
            tempfile.gettempdir(),
        ):
            assert word.encode() not in one
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


def test_what_tracing_gets_wrong_is_found_and_refused(monkeypatch):
    def fails(network, images):
        raise RuntimeError("beyond this one too\nand more")

    monkeypatch.setattr(onnx_export, "_captured", fails)
    with pytest.raises(UserError, match="cannot be exported to ONNX") as error:
        exported(OfTheBatch())
    assert "\n" not in str(error.value)


def test_what_tracing_cannot_follow_is_captured(monkeypatch):
    def fails(network, images):
        raise RuntimeError("no tracing today")

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


@pytest.mark.parametrize("classes", [3, 20])
def test_predictions_have_a_top5_where_there_are_classes_enough(classes):
    from dataclasses import replace

    data = replace(toys.data(), classes=[str(index) for index in range(classes)])
    logits = torch.zeros(12, classes)
    logits[range(12), data.test.labels] = 1
    found = onnx_session.predictions(torch.zeros(15, classes), logits, data)
    assert torch.equal(found.test, data.test.labels)
    assert found.test_top5 == (None if classes == 3 else 1.0)


# int8


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("bits", [7, 8])
def test_int8_of_a_trained_network_answers_as_it(trained, file, method, bits):
    model, data = trained
    seen = onnx_int8.observe(file, data.train.images.numpy(), 1)
    small = onnx_int8.quantize(file, onnx_int8.ranges(seen, method, 99.9), bits, {})
    found = onnx_session.logits(onnx_session.session(small, 1), data.test)
    wanted = onnx_export.torch_logits(model, data.test)
    agreement = onnx_export.compare(wanted, found)
    assert agreement.agreement >= 0.95
    assert agreement.difference < 0.2 * agreement.largest
    assert (found.argmax(1) == data.test.labels).double().mean() >= 0.95


def test_int8_files_are_a_third_where_weights_weigh():
    given = exported(toys.lived_in(toys.convnet(16)))
    assert len(int8(given)) < 0.4 * len(given)


@pytest.mark.parametrize(("bits", "most"), [(7, 64), (8, 127)])
def test_weights_use_as_many_bits_as_they_may(file, bits, most):
    found = weights(int8(file, bits))
    assert len(found) == 8
    for one in found:
        # Symmetric per output channel: the largest of each is the largest level.
        levels = np.abs(one.astype(int))
        assert levels.max() == most
    assert onnx_export.metadata(int8(file, bits))["about"]["weight_bits"] == bits


def test_scales_are_per_output_channel_and_zero_points_are_zero(file):
    tensors = {
        one.name: numpy_helper.to_array(one)
        for one in onnx.load_from_string(int8(file)).graph.initializer
    }
    quantized = [name for name, one in tensors.items() if one.dtype == np.int8 and one.ndim > 1]
    for name in quantized:
        base = name.removesuffix("_quantized")
        assert tensors[f"{base}_scale"].size in tensors[name].shape
        assert tensors[f"{base}_scale"].size > 1
        assert not tensors[f"{base}_zero_point"].any()


@pytest.mark.parametrize("bits", [7, 8])
def test_zeros_of_a_pruned_network_stay_zeros(trained, bits):
    model, _ = trained
    pruned = masks.masked(model, masks.global_(magnitude.scores(model), 0.8))
    given = exported(pruned)
    found = sorted(weights(int8(given, bits)), key=lambda one: one.size)
    wanted = sorted(prunable.weights(pruned).values(), key=torch.Tensor.numel)
    assert len(found) == len(wanted)
    for levels, weight in zip(found, wanted, strict=True):
        if levels.ndim == 4:  # The first convolution has more channels; tests/test_onnx_pixels.py.
            levels = levels[:, : weight.shape[1]]
        # Linear layers are stored as [in, out] or [out, in].
        zeros = (weight == 0).numpy()
        zeros = zeros if zeros.shape == levels.shape else zeros.T
        assert not levels[zeros].any()
        assert (levels == 0).mean() >= zeros.mean() > 0.1


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


def test_logits_are_not_rounded_to_levels(trained, file):
    _, data = trained
    session = onnx_session.session(int8(file), 1)
    found = onnx_session.logits(session, data.test)
    assert len(found.unique()) > 100
    proto = onnx.load_from_string(int8(file))
    maker = next(node for node in proto.graph.node if "logits" in node.output)
    assert maker.op_type == "Gemm"


def test_quantizing_says_nothing(file, capfd):
    int8(file, method="entropy")
    assert capfd.readouterr() == ("", "")


def test_observed_ranges_are_those_of_the_values(file):
    given = pixels(40, seed=3)
    seen = onnx_int8.observe(file, given.numpy(), 1)
    session = onnx_session.session(file, 1)
    logits = session.run(None, {"images": given.numpy()})[0]
    assert seen["logits"].low == pytest.approx(logits.min(), rel=1e-5)
    assert seen["logits"].high == pytest.approx(logits.max(), rel=1e-5)
    assert seen["logits"].counts.sum() == logits.size
    assert all(one.low <= one.high for one in seen.values())


@pytest.mark.parametrize("name", ["resnet20", "vit", "mobilenet_v3_small", "densenet121"])
def test_int8_of_other_networks_is_executed_and_close(name):
    build, shape = NETWORKS[name]
    model = build()
    given = exported(model, shape)
    small = int8(given, shape=shape, count=16)
    found = compared(model, small, shape, count=16)
    assert found.difference < 0.6 * found.largest
    # Every tensor costs a name and a scale: more than its weights, in a toy of a transformer.
    assert name == "vit" or len(small) < 0.6 * len(given)


# Whether a CPU's kernels saturate


@pytest.mark.parametrize(
    ("machine", "isa", "saturates"),
    [
        ("x86_64", ["avx2", "fma"], True),
        ("x86_64", ["avx2", "avx512f", "avx512bw", "avx512_bf16"], True),
        ("x86_64", ["avx2", "avx512f", "avx512_vnni"], False),
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("x86_64", ["avx2", "avx512f", "amx_int8", "amx_tile"], False),
        ("AMD64", [], True),
        ("x86_64", [], True),
        ("aarch64", ["asimd"], False),
        ("arm64", ["i8mm", "dotprod"], False),
    ],
)
def test_seven_bits_where_sums_of_eight_would_saturate(machine, isa, saturates):
    about = {"machine": machine, "isa": isa}
    assert hardware.int8_saturates(machine, isa) == saturates
    assert onnx_int8.weight_bits("auto", about) == (7 if saturates else 8)
    assert onnx_int8.weight_bits(8, about) == 8
    assert onnx_int8.weight_bits(7, about) == 7


def test_sums_of_seven_bit_weights_fit_sixteen_bits():
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 127


def test_the_isa_that_kernels_choose_by_is_named_in_one_order():
    isa = ["amx_tile", "avx", "avx512_vnni", "avx2", "fma"]
    assert hardware.kernel_isa(isa) == "avx2 avx512_vnni"
    assert hardware.kernel_isa([]) == ""
