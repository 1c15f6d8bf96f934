"""`python -m stages.tools.packed`: what it prints and writes, and with which exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.lib.compression import container, packed
from stages.lib.models import checkpoints, registry
from stages.lib.quantization import linear
from stages.tools import packed as tool
from tests import toys

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model():
    return toys.lived_in(toys.convnet())


@pytest.fixture
def file(model, tmp_path):
    path = tmp_path / "net.packed"
    quantized = linear.quantize_weights(model, 4, "symmetric", "channel")
    assert packed.save(path, model, quantized) == path.stat().st_size
    assert list(tmp_path.iterdir()) == [path]
    return path


def printed(capsys, *argv):
    tool.main(list(map(str, argv)))
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def failed(capsys, *argv):
    """What a mistake prints, after checking that it is one line and that the code is 2."""
    with pytest.raises(SystemExit) as stop:
        tool.main(list(map(str, argv)))
    output = capsys.readouterr()
    assert stop.value.code == 2
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    return output.err


def test_info_tells_each_tensor_and_the_totals(capsys, file, model):
    lines = printed(capsys, "info", file).splitlines()
    assert '"name": "convnet"' in lines[0]
    rows = {line.split()[0]: line.split() for line in lines[3:-3]}
    assert list(rows) == list(model.state_dict())
    assert rows["conv1.weight"][1:6] == ["4×1×3×3", "4", "bit,", "4", "scales"]
    assert rows["norm1.running_var"][1:] == ["4", "float32", "0.0%", "16.0"]
    assert rows["norm1.num_batches_tracked"][1:3] == ["1", "int64"]
    plain = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert f"{file.stat().st_size:,} bytes" in lines[-2]
    assert f"{plain:,} of plain tensors" in lines[-2]
    assert "bound" in lines[-1]
    assert "%" in lines[-1]


def test_a_fresh_process_unpacks_what_loads_as_any_network(file, model, tmp_path):
    target = tmp_path / "new" / "net.safetensors"
    command = [sys.executable, "-m", "stages.tools.packed", "unpack", file, "-o", target]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == f"{target}: {target.stat().st_size:,} bytes\n"
    quantized = linear.quantize_weights(model, 4, "symmetric", "channel")
    expected = linear.with_weights(model, quantized)
    assert toys.same_state(checkpoints.load_model(target), expected)
    assert toys.same_state(packed.load(file)[0], expected)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[:-1] + b"\0", "damaged"),
        (lambda data: b"PK\3\4" + data, "not a packed network"),
        (lambda data: container.sealed(data[:4] + b"\3" + data[5:]), "version 3"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_not_sound_is_one_line_and_exit_code_2(
    capsys, file, tmp_path, change, problem
):
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"of before")
    for argv in (["info", file], ["verify", file], ["unpack", file, "-o", target]):
        text = failed(capsys, *argv)
        assert str(file) in text
        assert problem in text
    assert target.read_bytes() == b"of before"


NET = """
from pathlib import Path
from torch import nn
Path(__file__ + "ran").touch()


def net(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))
"""


@pytest.mark.parametrize("command", ["info", "verify", "unpack"])
def test_a_custom_network_is_built_only_where_it_is_named(capsys, tmp_path, command):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    name, file, ran = f"{tmp_path}/net.py:net", tmp_path / "net.packed", tmp_path / "net.pyran"
    model = registry.build_seeded(registry.architecture(name, 0, 1, 3, (8, 8)), 0)
    packed.save(file, model, linear.quantize_weights(model, 4, "symmetric", "channel"))
    argv = [command, file, *(["-o", tmp_path / "output"] if command == "unpack" else [])]
    ran.unlink()
    # The file does not say where the code lies, only what it is called.
    assert "--network 'net.py:net'" in failed(capsys, *argv)
    assert "--network 'net.py:net'" in failed(capsys, *argv, "--network", "other.py:net")
    assert not ran.exists()
    assert printed(capsys, *argv, "--network", name)
    assert ran.exists()


def test_too_large_a_network_is_refused_until_it_is_allowed(capsys, file):
    text = failed(capsys, "verify", file, "--max-elements", 10)
    allowed = text.split("--max-elements ")[1].split()[0]
    told = printed(capsys, "verify", file, "--max-elements", allowed)
    assert told.startswith(f"{file}: sound: ")


@pytest.mark.parametrize("argv", ["", "info", "show x", "unpack x", "info x --max-elements many"])
def test_a_command_line_that_is_none_is_exit_code_2(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        tool.main(argv.split())
    assert stop.value.code == 2
    assert "usage: python -m stages.tools.packed" in capsys.readouterr().err
