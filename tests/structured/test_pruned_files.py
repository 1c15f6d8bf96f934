"""Files of networks that lost filters: rebuilt alone, in a fresh process, bit for bit."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stages.lib.core import network_names
from stages.lib.core.errors import UserError
from stages.lib.models import checkpoints, registry, resizing
from stages.lib.structured import analysis, ranking, removal
from tests import toys

ROOT = Path(__file__).resolve().parents[2]

OWN = """
from torch import nn
from blocks import Block

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.calls = 0
        self.stem = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6, 8), Block(8, 8))
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images):
        self.calls += 1
        images = self.blocks(self.stem(images).relu()).mean((2, 3))
        return self.classifier(self.frozen(images).relu())
"""
BLOCKS = """
from torch import nn

class Block(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(outside, outside, 3, padding=1, groups=outside)
        self.norm = nn.BatchNorm2d(outside)
        self.plain = nn.InstanceNorm2d(outside)

    def forward(self, images):
        return self.norm(self.plain(self.depthwise(self.conv(images)))).relu()
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The user's file, with a module beside it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "blocks.py").write_text(BLOCKS, encoding="utf-8")
    (folder / "net.py").write_text(OWN, encoding="utf-8")
    return folder / "net.py"


def shape(name: str) -> tuple[int, int, int]:
    return (3, 32, 32) if name in network_names.TORCHVISION else (1, 8, 8)


def dense(name: str) -> nn.Module:
    channels, *size = shape(name)
    description = registry.architecture(name, 4, channels, 3, size)
    return toys.lived_in(registry.build_seeded(description, 0))


def pruned(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    plan = analysis.analyse(model, image_shape)
    return removal.remove(model, plan, ranking.choose(model, plan, 0.5, "layer"))


NAMES = ["convnet", "resnet20", "resnet18", "mobilenet_v2", "densenet121"]


@pytest.fixture(scope="module")
def small(file):
    """A pruned network of each kind, by name; the user's own as `own`."""
    found = {name: pruned(dense(name), shape(name)) for name in NAMES}
    return found | {"own": pruned(dense(f"{file}:Net"), (1, 8, 8))}


READER = """
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from stages.lib.models import checkpoints

torch.set_num_threads(1)
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    model = checkpoints.load_model(folder / f"{name}.safetensors")
    batch = load_file(folder / f"{name}_batch.safetensors")["batch"]
    with torch.no_grad():
        save_file({"logits": model(batch)}, folder / f"{name}_logits.safetensors")
    checkpoints.save_model(model, folder / f"{name}_again.safetensors")
"""


def test_a_fresh_process_reads_pruned_networks_from_their_files_bit_for_bit(small, tmp_path):
    for name, model in small.items():
        checkpoints.save_model(model, tmp_path / f"{name}.safetensors")
        save_file({"batch": toys.noise(2, shape(name))}, tmp_path / f"{name}_batch.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", READER, tmp_path, *small],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name, model in small.items():
        with torch.no_grad():
            expected = model(toys.noise(2, shape(name)))
        found = load_file(tmp_path / f"{name}_logits.safetensors")["logits"]
        assert torch.equal(found, expected), name
        first, again = (tmp_path / f"{name}{end}.safetensors" for end in ("", "_again"))
        assert first.read_bytes() == again.read_bytes(), name


@pytest.mark.parametrize("name", [*NAMES, "own"])
def test_a_pruned_network_knows_what_it_was(small, file, name):
    model = small[name]
    description = registry.architecture_of(model)
    full = f"{file}:Net" if name == "own" else name
    channels, *size = shape(name)
    assert registry.dense_architecture(description) == registry.architecture(
        full, 4, channels, 3, size
    )
    assert registry.RESIZED in description
    assert json.loads(json.dumps(description)) == description
    assert registry.architecture_of(copy.deepcopy(model)) == description


@pytest.mark.parametrize("name", [*NAMES, "own"])
def test_a_rebuilt_network_is_the_pruned_one_in_every_size(small, tmp_path, name):
    model = small[name]
    written = checkpoints.save_model(model, tmp_path / "model.safetensors")
    assert written == checkpoints.serialized_bytes(model)
    found = checkpoints.load_model(tmp_path / "model.safetensors")
    assert toys.same_state(found, model)
    kept, was = resizing.sizes(found), resizing.sizes(model)
    if name == "own":
        was[""]["calls"] = kept[""]["calls"]
    assert kept == was
    for one, other in zip(found.parameters(), model.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad


def test_a_rebuilt_network_can_be_pruned_again(small, tmp_path):
    checkpoints.save_model(small["convnet"], tmp_path / "once.safetensors")
    twice = pruned(checkpoints.load_model(tmp_path / "once.safetensors"), (1, 8, 8))
    checkpoints.save_model(twice, tmp_path / "twice.safetensors")
    found = checkpoints.load_model(tmp_path / "twice.safetensors")
    assert toys.same_state(found, twice)
    assert torch.equal(found(toys.noise(2)), twice(toys.noise(2)))


def test_a_dense_network_is_described_by_the_params_alone():
    for name in ("convnet", "resnet20"):
        model = dense(name)
        assert registry.architecture_of(model) == registry.architecture(name, 4, 1, 3, (8, 8))
        assert registry.dense_architecture(registry.architecture_of(model)) == (
            registry.architecture_of(model)
        )


def test_a_counter_of_the_users_network_is_no_size(file):
    model = dense(f"{file}:Net")
    model(toys.noise(1))
    assert model.calls > 0
    assert registry.RESIZED not in registry.architecture_of(model)


def test_rebuilding_leaves_the_global_random_stream_alone(small):
    model = small["resnet20"]
    before = torch.get_rng_state()
    registry.rebuild(registry.architecture_of(model), checkpoints.tensors_of(model))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_descriptions_own_dict_is_left_alone(small):
    model = small["resnet20"]
    description = registry.architecture_of(model)
    kept = copy.deepcopy(description)
    registry.rebuild(description, checkpoints.tensors_of(model))
    assert description == kept


def refused(path: Path, tensors, description) -> str:
    checkpoints.save_tensors(path, tensors, {checkpoints.KEY: description})
    with pytest.raises(UserError) as caught:
        checkpoints.load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hostile(description, **changes):
    """The description with sizes replaced: `stem__out_channels=3`."""
    changed = copy.deepcopy(description)
    for key, value in changes.items():
        module, _, size = key.rpartition("__")
        changed[registry.RESIZED].setdefault(module, {})[size] = value
    return changed


@pytest.mark.parametrize(
    "value", [-1, 0, 17, 10**30, "3", 3.0, None, True, [3], [3, 3], {"a": 1}, float("nan")]
)
def test_a_size_that_pruning_does_not_leave_is_refused(small, tmp_path, value):
    model = small["resnet20"]
    description = hostile(registry.architecture_of(model), stem__out_channels=value)
    path = tmp_path / "model.safetensors"
    assert "do not fit" in refused(path, checkpoints.tensors_of(model), description)


@pytest.mark.parametrize("value", [3, [3], [3, 3, 3], [4, 3], [-3, 3], [0, 3], [3, "3"], [True, 3]])
def test_a_list_of_sizes_that_pruning_does_not_leave_is_refused(small, tmp_path, value):
    model = small["resnet20"]
    description = hostile(registry.architecture_of(model), stem__kernel_size=value)
    path = tmp_path / "model.safetensors"
    assert "do not fit" in refused(path, checkpoints.tensors_of(model), description)


@pytest.mark.parametrize(
    "resized",
    [
        None, 3, "stem", [], ["stem"], {"stem": None}, {"stem": 3}, {"stem": ["out_channels"]},
        {"nowhere": {"out_channels": 3}}, {"stem": {"nothing": 3}}, {"stem": {"weight": 3}},
        {"stem": {"forward": 3}}, {"stem": {"_parameters": 3}}, {"stem": {"training": 0}},
        {"stem": {"__class__": 3}}, {"": {"depth": 3}},
    ],
)  # fmt: skip
def test_sizes_of_what_the_network_does_not_have_are_refused(small, tmp_path, resized):
    model = small["resnet20"]
    description = {**registry.architecture_of(model), registry.RESIZED: resized}
    path = tmp_path / "model.safetensors"
    assert "do not fit" in refused(path, checkpoints.tensors_of(model), description)


def test_tensors_without_their_sizes_are_refused(small, tmp_path):
    model = small["resnet20"]
    description = registry.dense_architecture(registry.architecture_of(model))
    path = tmp_path / "model.safetensors"
    assert "do not fit" in refused(path, checkpoints.tensors_of(model), description)


@pytest.mark.parametrize(
    "change",
    [
        {"stem.weight": torch.ones(17, 1, 3, 3)},
        {"stem.weight": torch.ones(8, 1, 3)},
        {"stem.weight": torch.ones(())},
        {"norm.weight": torch.ones(8, 1)},
        {"nowhere.weight": torch.ones(3)},
        {"stem.bias": torch.ones(8)},
        {"stem.forward": torch.ones(8)},
        {"norm.num_batches_tracked": torch.ones(1)},
        {"stem.weight": None},
    ],
)
def test_tensors_that_no_pruning_leaves_are_refused(small, tmp_path, change):
    model = small["resnet20"]
    tensors = {**checkpoints.tensors_of(model), **change}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    path = tmp_path / "model.safetensors"
    assert "do not fit" in refused(path, tensors, registry.architecture_of(model))


@pytest.mark.parametrize("name", ["net.py", "blocks.py"])
@pytest.mark.parametrize("change", ["edited", "gone"])
def test_a_network_from_a_file_that_changed_since_is_refused(tmp_path, name, change):
    (tmp_path / "blocks.py").write_text(BLOCKS, encoding="utf-8")
    (tmp_path / "net.py").write_text(OWN, encoding="utf-8")
    path = tmp_path / "model.safetensors"
    checkpoints.save_model(dense(f"{tmp_path}/net.py:Net"), path)
    checkpoints.load_model(path)
    if change == "gone":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"net.py has changed, or is gone, since") as caught:
        checkpoints.load_model(path)
    assert "dvc repro" in str(caught.value)


TIED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 3, padding=1)
        self.other.weight = self.one.weight
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.classifier = nn.Linear(6, num_classes)

    def forward(self, images):
        images = self.other(self.one(self.stem(images).relu()).relu()).relu()
        return self.classifier(self.inner(images).relu().mean((2, 3)))
"""


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_tied_weights_are_stored_and_tied_again(tmp_path, removed, channels_last):
    (tmp_path / "net.py").write_text(TIED, encoding="utf-8")
    model = dense(f"{tmp_path}/net.py:Net")
    if removed:
        plan = analysis.analyse(model, (1, 8, 8))
        model = removal.remove(model, plan, ranking.choose(model, plan, 0.1, "layer"))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    path = tmp_path / "model.safetensors"
    assert checkpoints.save_model(model, path) == checkpoints.serialized_bytes(model)
    found = checkpoints.load_model(path)
    assert toys.same_state(found, model)
    assert found.one.weight is found.other.weight
    assert (registry.RESIZED in registry.architecture_of(found)) is removed


def test_shrinking_is_told_from_everything_else():
    sizes = {"layer": {"out_channels": 8, "kernel_size": [3, 3], "groups": 1}}

    def changes(**now):
        return resizing.changes(sizes, {"layer": {**sizes["layer"], **now}}).get("layer", {})

    assert changes() == {}
    assert changes(out_channels=5) == {"out_channels": 5}
    assert changes(kernel_size=[3, 1]) == {"kernel_size": [3, 1]}
    assert changes(out_channels=9, groups=0, kernel_size=[3], calls=4) == {}
