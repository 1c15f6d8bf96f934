"""The same ONNX file in every engine that is installed."""

import numpy as np
import pytest
import torch

from stages.lib.core import engines, outputs, paths
from stages.lib.core.engines import ENGINES
from stages.lib.core.errors import UserError
from stages.lib.engines import executors, onnx_export
from tests import onnx_toys, toys

EXECUTING = [engine for engine in ENGINES.values() if engine.module]


@pytest.fixture(params=EXECUTING, ids=lambda engine: engine.name)
def engine(request):
    if engines.missing(request.param, engines.installed()):
        pytest.skip("not installed")
    return request.param


@pytest.fixture(scope="module")
def files():
    given = toys.halves(40)
    network = toys.lived_in(toys.convnet(8))
    file = onnx_export.export(network, given, ["above", "below", "dark"], {})
    return network, given, {"float32": file, "int8": onnx_toys.int8(file, given.images)}


def test_float32_is_torchs(engine, files):
    network, given, forms = files
    assert onnx_toys.compared(network, forms["float32"], given, engine.name).is_same


def test_int8_is_onnx_runtimes_give_or_take_a_step_here_and_there(engine, files):
    _, given, forms = files
    wanted = onnx_toys.answers(forms["int8"], given)
    found = onnx_toys.answers(forms["int8"], given, engine.name)
    assert float((wanted - found).abs().max()) <= 0.05 * float(wanted.abs().max())
    assert float((wanted.argmax(1) == found.argmax(1)).double().mean()) >= 0.95


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_an_answer_is_the_same_in_any_batch_and_stays_when_others_follow(engine, files, form):
    _, given, forms = files
    execute = executors.load(engine, forms[form], 1, "the network")
    whole = executors.logits(execute, given.images, 7)
    assert whole.shape == (40, 3)
    assert whole.dtype == torch.float32
    first = execute(given.images[:1].numpy())
    kept = first.copy()
    execute(given.images[1:2].numpy())
    assert np.array_equal(first, kept)
    assert np.allclose(first, whole[:1], atol=1e-4 * float(whole.abs().max()))


def test_a_file_that_cannot_be_loaded_is_a_line_with_its_name(engine):
    with pytest.raises(UserError, match=f"^mine.onnx: {engine.title} cannot load it ") as error:
        executors.load(engine, b"no network", 1, "mine.onnx")
    assert "\n" not in str(error.value)


def test_files_are_executed_by_the_engines_of_their_suffix():
    assert [engine.name for engine in engines.of_file("a/b.onnx")] == ["onnxruntime", "openvino"]
    assert [engine.name for engine in engines.of_file("a/b.safetensors")] == ["torch"]
    assert engines.of_file("a/b.packed") == []


def test_what_is_installed_is_told_as_it_was_written(tmp_path):
    file = tmp_path / "engines.json"
    with pytest.raises(UserError, match=r"engines\.json: not found; run `dvc repro probe"):
        engines.read(file)
    for versions in ({"openvino": None}, engines.installed()):
        outputs.write_json(file, versions)
        assert engines.read(file) == versions
    outputs.write_json(file, {"another": None})
    with pytest.raises(UserError, match="not the versions of engines"):
        engines.read(file)
    # Those that the requirements name are always there.
    assert not any(engines.missing(one, {"openvino": None}) for one in EXECUTING[:1])
    told = engines.missing(ENGINES["openvino"], {"openvino": None})
    assert str(paths.OPENVINO_REQUIREMENTS) in told
