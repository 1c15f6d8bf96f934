"""Files of networks that lost filters: rebuilt alone, in a fresh process, bit for bit."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from stages.lib.core import network_names
from stages.lib.core.errors import UserError
from stages.lib.models import checkpoints, registry, resizing
from stages.lib.models.origins import copied
from stages.lib.quantization import linear
from stages.lib.structured import analysis, ranking, removal
from tests import toys

ROOT = Path(__file__).resolve().parents[2]

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.calls = 0
        self.stem = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.plain = nn.InstanceNorm2d(8)
        self.last = nn.Conv2d(8, 8, 3)
        self.one = nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)
        self.other.weight = self.one.weight
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images):
        self.calls += 1
        images = self.norm(self.plain(self.depthwise(self.conv(self.stem(images).relu()))))
        images = self.last(images.relu()).mean((2, 3))
        images = self.other(self.one(images).relu())
        return self.classifier(self.frozen(images).relu())
"""


def custom(folder: Path) -> str:
    """The name of a custom network with tied and with frozen weights."""
    (folder / "net.py").write_text(NET, encoding="utf-8")
    return f"{folder}/net.py:Net"


def shape(name: str) -> tuple[int, int, int]:
    return (3, 32, 32) if name in network_names.TORCHVISION else (1, 8, 8)


def unpruned(name: str) -> registry.Architecture:
    channels, *size = shape(name)
    return registry.architecture(name, 4, channels, 3, size)


def dense(name: str) -> nn.Module:
    return toys.lived_in(registry.build_seeded(unpruned(name), 0))


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


def digest(model: nn.Module, name: str, path: Path) -> str:
    """Writes the network's file. Returns a hash of its bytes and of the network's outputs."""
    checkpoints.save_model(model, path)
    with torch.no_grad():
        logits = model(toys.noise(2, shape(name)))
    return hashlib.sha256(path.read_bytes() + logits.numpy().tobytes()).hexdigest()


READER = """
import sys
from pathlib import Path
from stages.lib.models import checkpoints
from tests.structured.test_pruned_files import digest

for number, name in enumerate(sys.argv[2:]):
    file = Path(sys.argv[1], f"{number}.safetensors")
    print(digest(checkpoints.load_model(file, network=name), name, file.with_name("again")))
"""


def test_a_fresh_process_reads_pruned_networks_from_their_files_bit_for_bit(small, full, tmp_path):
    digests = [
        digest(small[name], full[name], tmp_path / f"{number}.safetensors")
        for number, name in enumerate(NAMES)
    ]
    done = subprocess.run(
        [sys.executable, "-c", READER, tmp_path, *full.values()],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == digests, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_network_knows_what_it_was_and_is_rebuilt_in_every_size(
    small, full, tmp_path, name
):
    model, path = small[name], tmp_path / "model.safetensors"
    description = registry.architecture_of(model)
    assert registry.RESIZED in description
    assert json.loads(json.dumps(description)) == description
    assert registry.architecture_of(copied(model)) == description
    assert registry.dense_architecture(description) == unpruned(full[name])

    assert checkpoints.save_model(model, path) == checkpoints.serialized_bytes(model)
    stream = torch.get_rng_state()
    rebuilt = checkpoints.load_model(path, network=full[name])
    assert torch.equal(torch.get_rng_state(), stream)
    assert toys.same_state(rebuilt, model)
    now, before = resizing.sizes(rebuilt), resizing.sizes(model)
    # The user's counter of calls is no size.
    now[""].pop("calls", None)
    before[""].pop("calls", None)
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


@pytest.fixture
def refused(small, tmp_path):
    """Checks that a file of the pruned ResNet with other tensors or sizes is refused."""
    tensors = checkpoints.tensors_of(small["resnet20"])
    description = registry.architecture_of(small["resnet20"])

    def check(changed: dict, **stated: object) -> None:
        stored = {name: value for name, value in (tensors | changed).items() if value is not None}
        header = {checkpoints.KEY: stated or unpruned("resnet20")}
        checkpoints.save_tensors(tmp_path / "net.safetensors", stored, header)
        with pytest.raises(UserError, match=r"net.safetensors: .* do not fit[^\n]*$"):
            checkpoints.load_model(tmp_path / "net.safetensors")

    check.description = description
    return check


@pytest.mark.parametrize(
    ("size", "values"),
    [
        ("out_channels", (-1, 0, 17, 10**30, "3", 3.0, None, True, [3], {"a": 1}, float("nan"))),
        ("kernel_size", (3, [3], [3, 3, 3], [4, 3], [-3, 3], [0, 3], [3, "3"], [True, 3])),
    ],
)
def test_a_size_that_pruning_does_not_leave_is_refused(refused, size, values):
    resized = refused.description["resized"]
    for value in values:
        wrong = {**resized, "stem": resized["stem"] | {size: value}}
        refused({}, **refused.description | {"resized": wrong})


def test_sizes_of_what_the_network_does_not_have_are_refused(refused):
    refused({})
    for resized in (
        None, 3, "stem", [], ["stem"], {"stem": None}, {"stem": 3}, {"stem": ["out_channels"]},
        {"nowhere": {"out_channels": 3}}, {"stem": {"nothing": 3}}, {"stem": {"weight": 3}},
        {"stem": {"forward": 3}}, {"stem": {"_parameters": 3}}, {"stem": {"training": 0}},
        {"stem": {"__class__": 3}}, {"": {"depth": 3}},
    ):  # fmt: skip
        refused({}, **refused.description | {"resized": resized})


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("stem.weight", torch.ones(17, 1, 3, 3)),
        ("stem.weight", torch.ones(8, 1, 3)),
        ("stem.weight", torch.ones(())),
        ("stem.weight", None),
        ("norm.weight", torch.ones(8, 1)),
        ("nowhere.weight", torch.ones(3)),
        ("stem.bias", torch.ones(8)),
        ("stem.forward", torch.ones(8)),
        ("norm.num_batches_tracked", torch.ones(1)),
    ],
)
def test_tensors_that_no_pruning_leaves_are_refused(refused, name, tensor):
    refused({name: tensor}, **refused.description)


@pytest.mark.parametrize("load", [checkpoints.load_model, linear.load_model])
def test_a_file_does_not_choose_what_code_runs(tmp_path, load):
    name, path, ran = custom(tmp_path), tmp_path / "model.safetensors", tmp_path / "ran"
    (tmp_path / "net.py").write_text(f"open({str(ran)!r}, 'w').close()\n" + NET, encoding="utf-8")
    if load is linear.load_model:
        linear.save_model(path, dense(name), {})
    else:
        checkpoints.save_model(dense(name), path)
    ran.unlink()
    for network in (None, "convnet", "other.py:Net"):
        with pytest.raises(UserError, match=r"model.safetensors: .* --network 'net.py:Net'"):
            load(path, network=network)
    assert not ran.exists()
    load(path, network=name)
    assert ran.exists()


def test_a_network_from_a_file_that_changed_since_is_refused(tmp_path):
    path, source, network = tmp_path / "model.safetensors", tmp_path / "net.py", custom(tmp_path)
    checkpoints.save_model(dense(network), path)
    checkpoints.load_model(path, network=network)
    source.write_text(NET + "\n", encoding="utf-8")
    for change in (lambda: None, source.unlink):
        change()
        with pytest.raises(UserError, match=r"net.py has changed, or is gone, .*dvc repro"):
            checkpoints.load_model(path, network=network)


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tied_weights_are_stored_and_tied_again(small, full, tmp_path, removed, layout):
    model = copied(small["custom"]) if removed else dense(full["custom"])
    model, path = model.to(memory_format=layout), tmp_path / "model.safetensors"
    assert checkpoints.save_model(model, path) == checkpoints.serialized_bytes(model)
    rebuilt = checkpoints.load_model(path, network=full["custom"])
    assert toys.same_state(rebuilt, model)
    assert rebuilt.one.weight is rebuilt.other.weight
