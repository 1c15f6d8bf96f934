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

NET = """
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


def custom(folder: Path) -> str:
    """The name of a custom network whose file has a module beside it."""
    (folder / "blocks.py").write_text(BLOCKS, encoding="utf-8")
    (folder / "net.py").write_text(NET, encoding="utf-8")
    return f"{folder}/net.py:Net"


def shape(name: str) -> tuple[int, int, int]:
    return (3, 32, 32) if name in network_names.TORCHVISION else (1, 8, 8)


def dense(name: str) -> nn.Module:
    channels, *size = shape(name)
    description = registry.architecture(name, 4, channels, 3, size)
    return toys.lived_in(registry.build_seeded(description, 0))


def pruned(model: nn.Module, image_shape: tuple[int, int, int], sparsity: float = 0.5) -> nn.Module:
    plan = analysis.analyse(model, image_shape)
    return removal.remove(model, plan, ranking.choose(model, plan, sparsity, "layer"))


NAMES = ["convnet", "resnet20", "mobilenet_v3_small", "custom"]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The names as params have them, by name."""
    folder = tmp_path_factory.mktemp("custom")
    return {name: custom(folder) if name == "custom" else name for name in NAMES}


@pytest.fixture(scope="module")
def small(full):
    """A pruned network of each kind, by name."""
    return {name: pruned(dense(full[name]), shape(name)) for name in NAMES}


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
        logits = load_file(tmp_path / f"{name}_logits.safetensors")["logits"]
        assert torch.equal(logits, expected), name
        first, again = (tmp_path / f"{name}{end}.safetensors" for end in ("", "_again"))
        assert first.read_bytes() == again.read_bytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_network_knows_what_it_was(small, full, name):
    model = small[name]
    description = registry.architecture_of(model)
    channels, *size = shape(name)
    assert registry.dense_architecture(description) == registry.architecture(
        full[name], 4, channels, 3, size
    )
    assert registry.RESIZED in description
    assert json.loads(json.dumps(description)) == description
    assert registry.architecture_of(copy.deepcopy(model)) == description


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuilt_network_is_the_pruned_one_in_every_size(small, tmp_path, name):
    model = small[name]
    written = checkpoints.save_model(model, tmp_path / "model.safetensors")
    assert written == checkpoints.serialized_bytes(model)
    rebuilt = checkpoints.load_model(tmp_path / "model.safetensors")
    assert toys.same_state(rebuilt, model)
    now, before = resizing.sizes(rebuilt), resizing.sizes(model)
    if name == "custom":
        before[""]["calls"] = now[""]["calls"]
    assert now == before
    for one, other in zip(rebuilt.parameters(), model.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad


def test_a_rebuilt_network_can_be_pruned_again(small, tmp_path):
    checkpoints.save_model(small["convnet"], tmp_path / "once.safetensors")
    twice = pruned(checkpoints.load_model(tmp_path / "once.safetensors"), (1, 8, 8))
    checkpoints.save_model(twice, tmp_path / "twice.safetensors")
    rebuilt = checkpoints.load_model(tmp_path / "twice.safetensors")
    assert toys.same_state(rebuilt, twice)
    assert torch.equal(rebuilt(toys.noise(2)), twice(toys.noise(2)))


def test_a_counter_of_the_users_network_is_no_size(full):
    model = dense(full["custom"])
    model(toys.noise(1))
    assert model.calls > 0
    assert registry.RESIZED not in registry.architecture_of(model)


def test_rebuilding_has_no_side_effects(small):
    """Neither on the description nor on the global random stream."""
    description = registry.architecture_of(small["resnet20"])
    before, stream = copy.deepcopy(description), torch.get_rng_state()
    registry.rebuild(description, checkpoints.tensors_of(small["resnet20"]))
    assert description == before
    assert torch.equal(torch.get_rng_state(), stream)


@pytest.fixture
def assert_refused(small, tmp_path):
    """Checks that a file of the pruned ResNet with other tensors or sizes is refused in a line."""
    path = tmp_path / "model.safetensors"
    tensors = checkpoints.tensors_of(small["resnet20"])
    description = registry.architecture_of(small["resnet20"])
    unpruned = registry.dense_architecture(description)

    def check(changed=None, **sizes):
        stored = {
            name: tensor
            for name, tensor in (tensors | (changed or {})).items()
            if tensor is not None
        }
        stated = {**description, **sizes} if sizes or changed else unpruned
        checkpoints.save_tensors(path, stored, {checkpoints.KEY: stated})
        with pytest.raises(UserError, match="do not fit") as caught:
            checkpoints.load_model(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    check.resized = description[registry.RESIZED]
    return check


@pytest.mark.parametrize(
    ("size", "value"),
    [
        *(
            ("out_channels", value)
            for value in (-1, 0, 17, 10**30, "3", 3.0, None, True, [3], {"a": 1}, float("nan"))
        ),
        *(
            ("kernel_size", value)
            for value in (3, [3], [3, 3, 3], [4, 3], [-3, 3], [0, 3], [3, "3"], [True, 3])
        ),
    ],
)
def test_a_size_that_pruning_does_not_leave_is_refused(assert_refused, size, value):
    stem = assert_refused.resized["stem"] | {size: value}
    assert_refused(resized={**assert_refused.resized, "stem": stem})


@pytest.mark.parametrize(
    "resized",
    [
        None, 3, "stem", [], ["stem"], {"stem": None}, {"stem": 3}, {"stem": ["out_channels"]},
        {"nowhere": {"out_channels": 3}}, {"stem": {"nothing": 3}}, {"stem": {"weight": 3}},
        {"stem": {"forward": 3}}, {"stem": {"_parameters": 3}}, {"stem": {"training": 0}},
        {"stem": {"__class__": 3}}, {"": {"depth": 3}},
    ],
)  # fmt: skip
def test_sizes_of_what_the_network_does_not_have_are_refused(assert_refused, resized):
    assert_refused(resized=resized)


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
def test_tensors_that_no_pruning_leaves_are_refused(assert_refused, change):
    assert_refused(change)


def test_tensors_without_their_sizes_are_refused(assert_refused):
    assert_refused()


@pytest.mark.parametrize("name", ["net.py", "blocks.py"])
@pytest.mark.parametrize("change", ["edited", "gone"])
def test_a_network_from_a_file_that_changed_since_is_refused(tmp_path, name, change):
    path, source = tmp_path / "model.safetensors", tmp_path / name
    checkpoints.save_model(dense(custom(tmp_path)), path)
    checkpoints.load_model(path)
    if change == "gone":
        source.unlink()
    else:
        source.write_text(source.read_text(encoding="utf-8") + "\n", encoding="utf-8")
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
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tied_weights_are_stored_and_tied_again(tmp_path, removed, layout):
    (tmp_path / "net.py").write_text(TIED, encoding="utf-8")
    model = dense(f"{tmp_path}/net.py:Net")
    model = (pruned(model, (1, 8, 8), 0.1) if removed else model).to(memory_format=layout)
    path = tmp_path / "model.safetensors"
    assert checkpoints.save_model(model, path) == checkpoints.serialized_bytes(model)
    rebuilt = checkpoints.load_model(path)
    assert toys.same_state(rebuilt, model)
    assert rebuilt.one.weight is rebuilt.other.weight
    assert (registry.RESIZED in registry.architecture_of(rebuilt)) is removed


def test_shrinking_is_told_from_everything_else():
    sizes = {"layer": {"out_channels": 8, "kernel_size": [3, 3], "groups": 1}}

    def changes(**now):
        return resizing.changes(sizes, {"layer": {**sizes["layer"], **now}}).get("layer", {})

    assert changes() == {}
    assert changes(out_channels=5) == {"out_channels": 5}
    assert changes(kernel_size=[3, 1]) == {"kernel_size": [3, 1]}
    assert changes(out_channels=9, groups=0, kernel_size=[3], calls=4) == {}
