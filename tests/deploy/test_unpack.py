"""unpack.py, alone in a folder, reads to the bit what the pipeline reads."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings

from stages.lib.compression import packed
from stages.lib.core import outputs, paths
from stages.lib.deploy import graphs, unpack
from stages.lib.models import checkpoints, registry
from stages.lib.quantization import linear
from stages.lib.structured import analysis, ranking, removal
from tests import toys
from tests.compression.test_packed import TIED, any_network, quantized_of


def assert_read(model, quantized):
    """unpack.py's bytes are those of the network that `packed` rebuilds."""
    data = packed.pack(model, quantized)
    name = registry.architecture_of(model)["name"]
    again, _ = packed.unpack(data, network=name)
    layout = graphs.layout(again, Path("x.packed"))
    state = checkpoints.tensors_of(again)
    found = unpack.from_packed(data, layout)
    assert found.keys() == state.keys()
    for key, tensor in state.items():
        assert found[key] == graphs.tensor_bytes(tensor), key
    return unpack.safetensors(found, layout["header"]), state


@given(any_network())
@settings(toys.fewer_examples, max_examples=15)
def test_any_network_is_read_bit_for_bit(network):
    assert_read(*network)


def test_removed_filters_tied_weights_and_many_types_are_read(tmp_path):
    """The file that it writes is one that safetensors reads."""
    model = toys.lived_in(registry.build_seeded(registry.architecture("resnet20", 0, 1, 3), 0))
    plan = analysis.analyse(model, (1, 8, 8))
    small = removal.remove(model, plan, ranking.choose(model, plan, 0.6, "global"))
    (tmp_path / "net.py").write_text(TIED, encoding="utf-8")
    name = f"{tmp_path / 'net.py'}:Network"
    tied = registry.build_seeded(registry.architecture(name, 0, 1, 3, (8, 8)), 0).eval()
    for network in (small, tied):
        file, state = assert_read(network, quantized_of(network))
        (tmp_path / "x.safetensors").write_bytes(file)
        stored, _ = checkpoints.load_tensors(tmp_path / "x.safetensors")
        assert toys.same_tensors(stored, dict(state))


@pytest.mark.parametrize("bits", [4, 12])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_integers_in_a_safetensors_file_are_read_bit_for_bit(tmp_path, bits, scheme, granularity):
    model, file = toys.lived_in(toys.convnet()), tmp_path / "x.safetensors"
    linear.save_model(file, model, linear.quantize_weights(model, bits, scheme, granularity))
    again, _ = linear.load_model(file)
    found = unpack.from_integers(file.read_bytes())
    assert found == {
        name: graphs.tensor_bytes(tensor) for name, tensor in checkpoints.tensors_of(again).items()
    }


@pytest.fixture
def folder(tmp_path):
    """What lies beside a packed file, and the program."""
    model = toys.lived_in(toys.convnet())
    file = tmp_path / "smallest.packed"
    packed.save(file, model, quantized_of(model))
    outputs.write_json(file.with_suffix(paths.LAYOUT), graphs.layout(model, file))
    shutil.copy(unpack.__file__, tmp_path)
    return tmp_path


def run(folder, *arguments):
    command = [sys.executable, "-I", str(folder / "unpack.py"), *arguments]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, encoding="utf-8")


def test_the_program_unpacks_all_that_is_packed_beside_it(folder):
    done = run(folder)
    assert (done.returncode, done.stderr) == (0, "")
    stored, _ = checkpoints.load_tensors(folder / "smallest.float32.safetensors")
    model, _ = packed.load(folder / "smallest.packed")
    assert toys.same_tensors(stored, dict(model.state_dict()))


def damaged(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (damaged, "damaged, or cut short"),
        (lambda data: data[:-5], "damaged, or cut short"),
        (lambda data: data[:10], "no packed network"),
        (lambda data: b"hello" * 20, "no packed network"),
    ],
)
def test_a_damaged_file_gives_a_line_and_nothing_else(folder, change, told):
    file = folder / "smallest.packed"
    file.write_bytes(change(file.read_bytes()))
    done = run(folder, str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {file}: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not [*folder.glob("*.safetensors*")]


def test_a_layout_of_another_network_is_refused(folder):
    other = toys.convnet(8)
    layout = folder / "smallest.layout.json"
    outputs.write_json(layout, graphs.layout(other, folder / "smallest.packed"))
    done = run(folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
