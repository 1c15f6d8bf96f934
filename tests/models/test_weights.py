"""The user's weights: read without running code, and fitted to the network."""

import argparse
import copy
import json
import os
import re
import shutil
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from stages import train_baseline
from stages.lib.core import paths, records
from stages.lib.core.errors import UserError
from stages.lib.evaluation import inference
from stages.lib.evaluation.context import Context
from stages.lib.models import checkpoints, registry, torchvision_models, weights, weights_file
from stages.lib.models.weights_file import Stored
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
        weights_file.read(path)
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
    assert toys.same_tensors(weights_file.read(path).tensors, model.state_dict())


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def plain(state):
    """As read from a file that holds the state dict alone."""
    return Stored(state, dict.fromkeys(state, ""))


class Trainer:
    """What a training script may store whole."""

    def __init__(self, **parts):
        self.__dict__.update(parts)


class Averaged(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.module = model
        self.register_buffer("n_averaged", torch.tensor(3))


def half_sized(state):
    return {name: value / 2 for name, value in state.items()}


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
# Made by hand after public reports; the names of the keys are those of well-known trainers.
WRAPS = {
    "plain": lambda state: state,
    "a script": lambda state: {"state_dict": state, "epoch": 3, "optimizer": OPTIMIZER},
    "another": lambda state: {"model_state_dict": state, "optimizer_state_dict": OPTIMIZER},
    "args": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "scaler": {}},
    "net": lambda state: {"net": state, "acc": 93.1, "epoch": 199},
    "weights": lambda state: {"weights": state},
    "deep": lambda state: {"checkpoint": {"model": {"state_dict": state}}},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled and parallel": lambda state: prefixed("module._orig_mod.", state),
    "parallel": lambda state: {"state_dict": prefixed("module.", state)},
    "model.": lambda state: prefixed("model.", state),
    "module.model.": lambda state: prefixed("module.model.", state),
    "backbone.": lambda state: {"state_dict": prefixed("backbone.", state)},
    "parallel in part": lambda state: {
        name.replace("conv1.", "conv1.module."): value for name, value in state.items()
    },
    "Lightning": lambda state: {
        "state_dict": prefixed("model.", state) | {"criterion.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.4.0", "hyper_parameters": argparse.Namespace(lr=0.1),
        "callbacks": {"Checkpoint{'monitor': 'loss'}": {"best": torch.tensor(0.3)}},
    },
    "averaged alone": lambda state: prefixed("module.", state) | {"n_averaged": torch.tensor(3)},
    "student and teacher": lambda state: prefixed("student.", state) | {
        f"teacher.{name}": value for name, value in state.items() if "conv1" in name
    },
    "beside other tensors": lambda state: {**state, "optimizer": {"mean": torch.ones(3)}},
    "parameters": lambda state: {
        name: nn.Parameter(value, False) if value.is_floating_point() else value
        for name, value in state.items()
    },
}  # fmt: skip
SUFFIXES = ("pt", "ckpt", "bin", "pth.tar", "safetensors", "weights")


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_weights_are_found_whatever_is_around_them(model, tmp_path, wrap, zipped):
    suffix = SUFFIXES[list(WRAPS.values()).index(wrap) % len(SUFFIXES)]
    path = written(tmp_path / f"weights.{suffix}", wrap(model.state_dict()), zipped)
    fresh = toys.convnet(seed=5)
    assert weights.fit(fresh, weights_file.read(path), 3, path)[0::2] == ([], [])
    assert toys.same_state(fresh, model)


@given(
    st.lists(st.sampled_from(["model", "net", "state_dict", "module", "a", "conv1"]), max_size=4),
    st.lists(st.sampled_from(["model", "net", "ema", "module", "1", "conv1"]), max_size=3),
)
@toys.few_examples
def test_any_keys_around_any_prefix_are_passed_through(keys, prefix):
    model, fresh = toys.convnet(), toys.convnet(seed=5)
    stored = prefixed("".join(f"{part}." for part in prefix), model.state_dict())
    for key in keys:
        stored = {"epoch": 3, key: stored}
    assert weights.fit(fresh, weights_file._flatten(stored), 3, PATH).fresh == []
    assert toys.same_state(fresh, model)


@pytest.mark.parametrize(
    "whole",
    [lambda model: model, Averaged, lambda model: {"model": nn.DataParallel(model), "ema": None},
     lambda model: Trainer(network=model, lr=0.1), lambda model: {"model": Averaged(model)}],
)  # fmt: skip
def test_whole_networks_are_read_without_their_code(model, tmp_path, whole, monkeypatch):
    network = copy.deepcopy(model)
    path = written(tmp_path / "whole.pt", whole(network))
    with monkeypatch.context() as patched:
        for name in ("Trainer", "Averaged"):
            patched.delitem(globals(), name)
        fresh = toys.convnet(seed=5)
        assert weights.fit(fresh, weights_file.read(path), 3, path).fresh == []
    assert toys.same_state(fresh, model)


def test_exported_programs_are_read_and_torchscript_is_told_apart(model, tmp_path):
    path = tmp_path / "network.pt2"
    torch.export.save(torch.export.export(model.eval(), (toys.noise(2),)), path)
    fresh = toys.convnet(seed=5)
    assert weights.fit(fresh, weights_file.read(path), 3, path).fresh == []
    assert toys.same_state(fresh, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 3)).save(str(tmp_path / "script.pt"))
    assert "is TorchScript, which holds code and is not run; save the" in refused(
        tmp_path / "script.pt"
    )


def test_of_several_the_plain_one_is_taken_and_a_key_takes_another(model, tmp_path):
    state, averaged = model.state_dict(), half_sized(model.state_dict())
    path = written(
        tmp_path / "both.ckpt", {"model_ema": prefixed("module.", averaged), "model": state}
    )
    stored = weights_file.read(path)
    taken = {}
    for key in ("auto", "model", "model_ema"):
        fresh = toys.convnet(seed=5)
        fitted = weights.fit(fresh, stored, 3, path, key)
        taken[key] = fresh.conv1.weight.detach()
        others = ["model_ema"] if key == "auto" else []
        assert (fitted.key, fitted.others) == (key if key != "auto" else "model", others)
    assert torch.equal(taken["auto"], state["conv1.weight"])
    assert torch.equal(taken["model"], state["conv1.weight"])
    assert torch.equal(taken["model_ema"], averaged["conv1.weight"])
    with pytest.raises(UserError) as caught:
        weights.fit(fresh, stored, 3, path, "ema")
    assert str(caught.value).startswith(
        f"model.weights_key: ema is not in {path}; it has model_ema, model; allowed: one of these"
    )


def test_a_network_around_a_network_takes_the_inner_ones_weights(model):
    outer = nn.Sequential(OrderedDict(net=toys.convnet(seed=5)))
    assert weights.fit(outer, plain(model.state_dict()), 3, PATH).fresh == []
    assert toys.same_state(outer.net, model)


@pytest.mark.parametrize("change", [
    lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    lambda layer: nn.utils.weight_norm(layer), nn.utils.parametrizations.weight_norm,
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_were_computed_from_others_are_computed(tmp_path, change):
    torch.manual_seed(0)
    layer = change(nn.Conv2d(2, 4, 3))
    path = written(tmp_path / "w.pt", nn.Sequential(OrderedDict(conv=layer)).state_dict())
    fresh = nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 4, 3)))
    assert weights.fit(fresh, weights_file.read(path), 4, path).fresh == []
    images = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(fresh(images), layer(images))


@pytest.mark.parametrize(
    "stored",
    [{}, None, "state", torch.ones(3), [torch.ones(3)], {"epoch": 3}, {3: torch.ones(1)},
     {"state_dict": {}}, {"state_dict": {"epoch": 3}}],
)  # fmt: skip
def test_a_missing_file_and_what_is_no_state_dict_are_refused(tmp_path, stored):
    for path in (tmp_path / "weights.pt", tmp_path):
        assert "not found; give a file's path, or none" in refused(path)
    text = refused(written(tmp_path / "weights.pt", stored))
    assert "holds no state dict; save it with torch.save of model.state_dict()" in text


def test_a_checkpoint_that_holds_itself_or_is_very_deep_is_read(model, tmp_path):
    stored = {"model": model.state_dict()}
    stored["self"] = stored
    deep = stored["deep"] = {}
    for _ in range(300):
        deep["deep"] = deep = {}
    deep["conv1.weight"] = torch.ones(1)
    found = weights_file.read(written(tmp_path / "w.pt", stored))
    assert set(found.tensors) == set(prefixed("model.", model.state_dict()))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\x89HDF\r\n", "is HDF5, as Keras writes it"), (b"", "not a whole file of torch.save, "),
     (b"hello", "not a whole file of torch.save, "), (b"PK\3\4", "not a whole file of torch")],
)  # fmt: skip
def test_other_files_are_told_apart_by_their_content(tmp_path, content, words):
    (tmp_path / "w.safetensors").write_bytes(content)
    assert words in refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_code_in_a_pickle_never_runs(tmp_path, zipped, suffix):
    sprung = tmp_path / "sprung"

    class Trap:
        def __init__(self, *call):
            self.call = call

        def __reduce__(self):
            return self.call

    traps = (
        Trap(shutil.copyfile, (__file__, sprung)), Trap(Path.touch, (sprung,)),
        Trap(os.link, (__file__, sprung)),
    )  # fmt: skip
    function, method, of_the_system = (
        written(tmp_path / f"{index}{suffix}", {"weight": torch.ones(3), "trap": trap}, zipped)
        for index, trap in enumerate(traps)
    )
    # A stand-in takes the place of what would be called; where that fails, nothing is read.
    assert list(weights_file.read(function).tensors) == ["weight"]
    for path in (method, of_the_system):
        assert "without running code from it, which is never done" in refused(path)
    assert not sprung.exists()
    # The traps work.
    for path in (function, method):
        torch.load(path.open("rb"), weights_only=False)
        assert sprung.exists()
        sprung.unlink()


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
        found = weights_file.read(path)
    except UserError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.tensors.values())


PATH = Path("given.pt")


def misfit(model, stored) -> str:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        weights.fit(model, plain(stored), 3, PATH)
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
    assert weights.fit(fresh, plain(stored), 3, PATH).fresh == []
    state, taken = fresh.state_dict(), stored.keys() - AUXILIARY
    assert all(torch.equal(state[name], stored[name].to(state[name].dtype)) for name in taken)
    assert fresh.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "head"), [("convnet", "classifier"), ("squeezenet1_1", "classifier.1")]
)
def test_a_head_for_other_classes_stays_fresh_and_is_named(name, head):
    seven, five = (registry.build(registry.architecture(name, 4, 3, count)) for count in (7, 5))
    before, stored = copy.deepcopy(five.state_dict()), seven.state_dict()
    fresh = weights.fit(five, plain(stored), 5, PATH).fresh
    assert fresh == [f"{head}.weight", f"{head}.bias"]
    expected = {name: (before if name in fresh else stored)[name] for name in before}
    assert toys.same_tensors(five.state_dict(), expected)


def test_a_missing_head_stays_fresh_and_nothing_else_may_be_missing():
    model, stored = toys.convnet(seed=5), without("classifier", toys.convnet().state_dict())
    fitted = weights.fit(model, plain(stored), 3, PATH)
    assert fitted.fresh == ["classifier.weight", "classifier.bias"]
    assert fitted.reason == "not in the file"
    assert torch.equal(model.conv1.weight, stored["conv1.weight"])
    assert "lacks conv1.weight, classifier.weight" in misfit(model, without("conv1.", stored))


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_on_grey_images_the_sum_over_colours_answers_as_the_colours_did(name):
    colour, grey = (
        registry.build(registry.architecture(name, 4, channels, 3, (8, 8))).eval()
        for channels in (3, 1)
    )
    toys.lived_in(colour)
    assert weights.fit(grey, plain(colour.state_dict()), 3, PATH).fresh == []
    images = toys.noise(4)
    with torch.no_grad():
        expected = colour.double()(images.expand(-1, 3, -1, -1).double())
        torch.testing.assert_close(grey.double()(images.double()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (  # Colours are summed in the first convolution alone.
            lambda state: {**state, "conv2.weight": torch.ones(4, 3, 3, 3)},
            r"has misfitting conv2\.weight \[4, 3, 3, 3\] for \[4, 4, 3, 3\]; it has",
        ),
        (
            lambda state: without("conv", state),
            r"lacks conv1\.weight, conv2\.weight, conv3\.weight and 3 more; it has norm1\.weight,"
            r" norm1\.bias, norm1\.running_mean and \d+ more; the network wants conv1\.weight,"
            r" norm1.* and \d+ more; model\.name \(or model\.width\) is another network",
        ),
        (
            lambda state: {**state, "conv7.weight": torch.ones(1)},
            r"has, unknown to the network, conv7\.weight; it has",
        ),
        (
            lambda _: toys.convnet(5).state_dict(),
            r"misfitting conv1\.weight \[5, 1, 3, 3\] for \[4, 1, 3, 3\], .* and \d+ more; it has",
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
    assert weights.fit(second, plain(old), 3, PATH).fresh == []
    assert toys.same_state(second, first)


def take(file: Path, epochs: int = 0, without_training_images: bool = False, **model) -> Path:
    """Runs stage train_baseline with these weights; its directory."""
    named = {
        "name": "convnet", "width": 4, "weights": str(file), "weights_key": "auto",
        "class_index": "none", "normalize": "training",
    }  # fmt: skip
    params = SimpleNamespace(
        model=SimpleNamespace(**named | model),
        train_baseline=SimpleNamespace(epochs=epochs, learning_rate=0.01),
        training=toys.training_params(),
    )
    places = {paths.stage_directory("train_baseline", 0): file.parent / "out"}
    context = Context("train_baseline", 0, params, places)
    context.device, context.precision = torch.device("cpu"), torch.float32
    context.data = toys.data()
    context.training_normalize = context.data.train.normalize
    context.without_training_images, context.watched = without_training_images, {}
    train_baseline.baseline(context)
    context.finish()
    return context.directory


def test_with_no_epochs_the_given_weights_are_the_baseline(model, tmp_path, capsys):
    directory = take(written(tmp_path / "given.pt", model.state_dict()))
    assert toys.same_state(checkpoints.load_model(directory / paths.MODEL), model)
    accuracy = inference.accuracy(model, toys.data().test)
    (row,) = records.read(directory / paths.ROWS)
    assert row.test_accuracy == pytest.approx(accuracy, abs=1e-6)
    said = f"given.pt as it is: test accuracy {100 * accuracy:.2f} % of 12 images"
    assert said in capsys.readouterr().err


def test_a_head_for_other_classes_has_to_be_trained(tmp_path, capsys):
    file = written(tmp_path / "given.pt", toys.convnet(classes=7).state_dict())
    names = f"{file}: classifier.weight, classifier.bias: made for another number of classes"
    with pytest.raises(UserError) as caught:
        take(file)
    assert str(caught.value).startswith(f"model.weights: {names}")
    assert str(caught.value).endswith(
        "model.class_index to a file that says which logit each class has"
    )
    take(file, epochs=1)
    assert f"{names}, starting fresh" in capsys.readouterr().err


BRINGS = """
from pathlib import Path
import torch
from torch import nn

def build(num_classes, in_channels):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))
    net.load_state_dict(torch.load(Path(__file__).with_name("mine.pt"), weights_only=True))
    return net
"""


def test_a_network_that_brings_its_weights_is_taken_as_it_is(tmp_path, capsys):
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    written(tmp_path / "mine.pt", whole.state_dict())
    (tmp_path / "net.py").write_text(BRINGS)
    named = dict(zip(toys.data().classes, (4, 8, 0), strict=True))
    (tmp_path / "classes.json").write_text(json.dumps(named | {"another": 3}))
    directory = take(
        tmp_path / "none", weights="none", name=f"{tmp_path}/net.py:build",
        class_index=str(tmp_path / "classes.json"),
    )  # fmt: skip
    taken = checkpoints.load_model(directory / paths.MODEL, network=f"{tmp_path}/net.py:build")
    images = toys.noise(5)
    torch.testing.assert_close(taken(images), whole(images)[:, [4, 8, 0]])
    said = capsys.readouterr().err
    assert "net.py:build as it is: test accuracy" in said


def test_of_several_networks_in_a_file_the_others_are_named(model, tmp_path, capsys):
    state = model.state_dict()
    take(written(tmp_path / "two.ckpt", {"ema": half_sized(state), "model": state}))
    assert (
        "holds several networks; taken is model; model.weights_key may name another: ema"
        in capsys.readouterr().err
    )


def test_a_network_is_not_trained_without_training_images(model, tmp_path):
    file = written(tmp_path / "given.pt", model.state_dict())
    take(file, without_training_images=True)
    with pytest.raises(UserError, match="there are no training images; set it to 0, with model"):
        take(file, epochs=1, without_training_images=True)
