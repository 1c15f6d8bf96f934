"""The user's weights: read without running code, and fitted to the network."""

import copy
import re
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from stages import train_baseline
from stages.lib.core import paths, records
from stages.lib.core.errors import UserError
from stages.lib.evaluation import inference
from stages.lib.evaluation.context import Context
from stages.lib.models import checkpoints, registry, torchvision_models, weights
from tests import toys

FORMATS = {"zip": True, "legacy": False}


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


def written(path: Path, stored: object, zipped: bool = True) -> Path:
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        weights.read(path)
    text = str(caught.value)
    assert text.startswith(f"model.weights: {path}")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "write",
    [
        lambda model, path: torch.save(model.state_dict(), path.with_suffix(".pt")),
        lambda model, path: torch.save(
            model.state_dict(), path.with_suffix(".pth"), _use_new_zipfile_serialization=False
        ),
        lambda model, path: save_file(model.state_dict(), path.with_suffix(".safetensors")),
        lambda model, path: checkpoints.save_model(model, path.with_suffix(".safetensors")),
    ],
    ids=["zip", "legacy", "safetensors", "of the pipeline"],
)
def test_a_state_dict_is_read(model, tmp_path, write):
    write(model, tmp_path / "weights")
    (path,) = tmp_path.iterdir()
    assert toys.same_tensors(weights.read(path), model.state_dict())


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1, "state": []}},
        lambda state: {"model_state_dict": state},
        lambda state: {"model": state, "args": None},
        lambda state: prefixed("_orig_mod.", state),
        lambda state: prefixed("module._orig_mod.", state),
        lambda state: {"state_dict": prefixed("module.", state)},
        lambda state: OrderedDict((name, nn.Parameter(value, False)) for name, value in
                                  state.items() if value.is_floating_point()),
    ],
)  # fmt: skip
def test_wrappers_and_prefixes_come_off(model, tmp_path, wrap):
    state = model.state_dict()
    found = weights.read(written(tmp_path / "weights.pt", wrap(state)))
    assert all(torch.equal(found[name], state[name]) for name in found)
    assert len(found) >= len(state) - 6
    # One that only some names have stays.
    mixed = {"module.weight": torch.ones(1), "bias": torch.ones(1)}
    assert list(weights.read(written(tmp_path / "weights.pt", mixed))) == list(mixed)


@pytest.mark.parametrize(
    "stored",
    [
        {}, None, "state", torch.ones(3), [torch.ones(3)], {"epoch": 3}, {3: torch.ones(1)},
        {"weight": torch.ones(1), "epoch": 3}, {"state_dict": {}}, {"state_dict": {"epoch": 3}},
    ],
)  # fmt: skip
def test_a_missing_file_and_what_is_no_state_dict_are_refused(tmp_path, stored):
    for path in (tmp_path / "weights.pt", tmp_path):
        assert "not found; give a file's path, or none" in refused(path)
    text = refused(written(tmp_path / "weights.pt", stored))
    assert "holds no state dict; save it with torch.save of model.state_dict()" in text


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not(tmp_path, zipped, suffix):
    sprung = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return Path.touch, (sprung,)

    stored = {"weight": torch.ones(3), "trap": Trap()}
    text = refused(written(tmp_path / f"weights{suffix}", stored, zipped))
    assert not sprung.exists()
    if suffix != ".safetensors":
        assert "wants to run code" in text
        # The trap works.
        torch.load(tmp_path / f"weights{suffix}", weights_only=False)
        assert sprung.exists()


@pytest.fixture(scope="module", params=[*FORMATS, "safetensors"])
def whole(request, tmp_path_factory):
    """A path, and the bytes of a sound file that stands there."""
    path = tmp_path_factory.mktemp("whole") / f"weights.{request.param}"
    stored = nn.Linear(6, 4).state_dict()
    if request.param == "safetensors":
        save_file(stored, path)
    else:
        written(path, stored, FORMATS[request.param])
    return path, path.read_bytes()


@given(st.data())
@toys.few_examples
def test_a_file_torn_anywhere_is_refused(whole, data):
    path, content = whole
    lengths = st.sampled_from([0, 1, 2, 8, 100]) | st.integers(0, len(content) - 1)
    path.write_bytes(content[: data.draw(lengths)])
    refused(path)


@given(st.data())
@toys.few_examples
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_file_is_read_or_refused_and_nothing_else(whole, data):
    path, content = whole[0], bytearray(whole[1])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = weights.read(path)
    except UserError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


PATH = Path("given.pt")


def misfit(model, stored) -> str:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        weights.fit(model, stored, 3, PATH)
    assert toys.same_tensors(model.state_dict(), before)
    assert str(caught.value).startswith("model.weights: given.pt ")
    return str(caught.value)


def without(words, state):
    return {name: tensor for name, tensor in state.items() if words not in name}


AUXILIARY = {f"{name}fc.weight": torch.ones(2) for name in ("aux1.", "aux2.", "AuxLogits.")}


@pytest.mark.parametrize(
    "change",
    [
        dict,
        # Auxiliary heads are left out; counts of steps may be missing, as in older files.
        lambda state: state | AUXILIARY,
        lambda state: without("batches", state),
        lambda state: {name: tensor.half() for name, tensor in state.items()},
    ],
)
def test_fitting_weights_are_taken_over_bit_for_bit(model, change):
    stored, fresh = change(model.state_dict()), toys.convnet(seed=5)
    assert weights.fit(fresh, stored, 3, PATH) == []
    state, taken = fresh.state_dict(), stored.keys() - AUXILIARY
    assert all(torch.equal(state[name], stored[name].to(state[name].dtype)) for name in taken)
    assert fresh.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "head"), [("convnet", "classifier"), ("squeezenet1_1", "classifier.1")]
)
def test_a_head_for_other_classes_stays_fresh_and_is_named(name, head):
    seven, five = (registry.build(registry.architecture(name, 4, 3, count)) for count in (7, 5))
    before, stored = copy.deepcopy(five.state_dict()), seven.state_dict()
    fresh = weights.fit(five, stored, 5, PATH)
    assert fresh == [f"{head}.weight", f"{head}.bias"]
    expected = {name: (before if name in fresh else stored)[name] for name in before}
    assert toys.same_tensors(five.state_dict(), expected)


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_on_grey_images_the_sum_over_colours_answers_as_the_colours_did(name):
    colour, grey = (
        registry.build(registry.architecture(name, 4, channels, 3, (8, 8))).eval()
        for channels in (3, 1)
    )
    toys.lived_in(colour)
    assert weights.fit(grey, colour.state_dict(), 3, PATH) == []
    images = toys.noise(4)
    with torch.no_grad():
        expected = colour.double()(images.expand(-1, 3, -1, -1).double())
        torch.testing.assert_close(grey.double()(images.double()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (  # Colours are summed in the first convolution alone.
            lambda state: {**state, "conv2.weight": torch.ones(4, 3, 3, 3)},
            r"has misfitting conv2\.weight \[4, 3, 3, 3\] for \[4, 4, 3, 3\]; model\.name",
        ),
        (
            lambda state: without("conv", state),
            r"lacks conv1\.weight, conv2\.weight, conv3\.weight and 3 more; model\.name",
        ),
        (
            lambda state: {**state, "conv7.weight": torch.ones(1)},
            r"has, unknown to the network, conv7\.weight; model\.name",
        ),
        (
            lambda _: toys.convnet(5).state_dict(),
            r"misfitting conv1\.weight \[5, 1, 3, 3\] for \[4, 1, 3, 3\], .* and \d+ more; model",
        ),
        *(
            (lambda state, odd=odd: state | {"conv3.weight": odd(state["conv3.weight"])}, words)
            for odd, words in (
                (lambda tensor: tensor.to(torch.int8), r"misfitting conv3\.weight of "),
                (lambda tensor: tensor.to(torch.complex64), r"misfitting conv3\.weight of "),
                (lambda tensor: tensor.to_sparse(), r"misfitting conv3\.weight of "),
                (lambda tensor: tensor.to("meta"), r"misfitting conv3\.weight of "),
                (lambda tensor: tensor * float("nan"), "infinite or undefined"),
                (lambda tensor: tensor / 0, "infinite or undefined"),
            )
        ),
    ],
)
def test_what_does_not_fit_or_is_not_plain_finite_and_real_is_told(change, words):
    model = toys.convnet()
    assert re.search(words, misfit(model, change(model.state_dict())))


def test_the_old_names_in_torchvisions_densenet_files_are_known():
    # As in the published files: `denselayer1.norm.1.weight` for `denselayer1.norm1.weight`.
    first, second = (torchvision_models.build("densenet121", 3, (32, 32), 3) for _ in range(2))
    old = {
        re.sub(r"(denselayer\d+\.)(norm|conv)([12])\.", r"\1\2.\3.", name): tensor
        for name, tensor in first.state_dict().items()
    }
    assert len(set(old) - set(first.state_dict())) > 500
    assert weights.fit(second, old, 3, PATH) == []
    assert toys.same_state(second, first)


def take(file: Path, epochs: int = 0) -> Path:
    """Runs stage train_baseline with these weights; its directory."""
    params = SimpleNamespace(
        model=SimpleNamespace(name="convnet", width=4, weights=str(file)),
        train_baseline=SimpleNamespace(epochs=epochs, learning_rate=0.01),
        training=toys.training_params(),
    )
    places = {paths.stage_directory("train_baseline", 0): file.parent / "out"}
    context = Context("train_baseline", 0, params, places)
    context.device, context.precision = torch.device("cpu"), torch.float32
    context.data = toys.data()
    train_baseline.main(context)
    context.finish()
    return context.directory


def test_with_no_epochs_the_given_weights_are_the_baseline(model, tmp_path, capsys):
    directory = take(written(tmp_path / "given.pt", model.state_dict()))
    assert toys.same_state(checkpoints.load_model(directory / paths.MODEL), model)
    accuracy = inference.accuracy(model, toys.data().test)
    (row,) = records.read(directory / paths.ROWS)
    assert row.test_accuracy == pytest.approx(accuracy, abs=1e-6)
    said = f"given.pt as it is: test accuracy {accuracy:.2%} of 12 images"
    assert said in capsys.readouterr().err


def test_a_head_for_other_classes_has_to_be_trained(tmp_path, capsys):
    file = written(tmp_path / "given.pt", toys.convnet(classes=7).state_dict())
    names = f"{file}: classifier.weight, classifier.bias: made for another number of classes"
    with pytest.raises(UserError) as caught:
        take(file)
    assert str(caught.value).startswith(f"model.weights: {names}")
    assert str(caught.value).endswith("set train_baseline.epochs to 1 or more")
    take(file, epochs=1)
    assert f"{names}, starting fresh" in capsys.readouterr().err
