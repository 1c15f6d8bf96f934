"""`python -m stages.tools.packed`: what it prints and writes, and with which exit code."""

import pytest

from stages.lib.compression import container, packed
from stages.lib.models import checkpoints, registry
from stages.lib.quantization import linear
from stages.tools import packed as tool
from tests import toys


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


@pytest.fixture(scope="module")
def content(model):
    return packed.pack(model, linear.quantize_weights(model, 4, "symmetric", "channel"))


@pytest.fixture
def file(content, tmp_path):
    path = tmp_path / "net.packed"
    path.write_bytes(content)
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
    assert rows["norm1.running_var"][1:3] == ["4", "float32"]
    assert rows["norm1.num_batches_tracked"][1:3] == ["1", "int64"]
    assert f"{file.stat().st_size:,} bytes" in lines[-2]
    assert "bound" in lines[-1]
    assert "%" in lines[-1]


def test_verify_says_that_a_file_is_sound(capsys, file):
    assert printed(capsys, "verify", file).startswith(f"{file}: sound: ")


def test_what_is_unpacked_loads_as_any_network(capsys, file, tmp_path):
    target = tmp_path / "new" / "net.safetensors"
    out = printed(capsys, "unpack", file, "-o", target)
    assert out == f"{target}: {target.stat().st_size:,} bytes\n"
    assert toys.same_state(checkpoints.load_model(target), packed.load(file)[0])
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_what_is_packed_is_the_network_quantized(capsys, model, tmp_path, bits):
    source, target = tmp_path / "net.safetensors", tmp_path / "net.packed"
    checkpoints.save_model(model, source)
    chosen = [] if bits == 4 else ["--bits", bits]
    assert str(target) in printed(capsys, "pack", source, "-o", target, *chosen)
    quantized = linear.quantize_weights(model, bits, "symmetric", "channel")
    assert toys.same_state(packed.load(target)[0], linear.with_weights(model, quantized))


@pytest.mark.parametrize("command", ["info", "verify", "unpack"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[:-1] + b"\0", "damaged"),
        (lambda data: b"PK\3\4" + data, "not a packed network"),
        (lambda data: container.sealed(data[:4] + b"\3" + data[5:]), "version 3"),
        (lambda data: b"", "not a packed network"),
        (None, "not found"),
    ],
)
def test_a_file_that_is_not_sound_is_one_line_and_exit_code_2(
    capsys, file, tmp_path, command, change, problem
):
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))
    target = tmp_path / "out.safetensors"
    text = failed(capsys, command, file, *(["-o", target] if command == "unpack" else []))
    assert str(file) in text
    assert problem in text
    assert not target.exists()


NET = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("ran").touch()


class Net(nn.Sequential):
    def __init__(self, num_classes, in_channels):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))
"""


@pytest.mark.parametrize("command", ["info", "verify", "unpack", "pack"])
def test_a_custom_network_is_built_only_where_it_is_named(capsys, tmp_path, command):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    name = f"{tmp_path / 'net.py'}:Net"
    model = registry.build_seeded(registry.architecture(name, 0, 1, 3, (8, 8)), 0)
    file, output = tmp_path / "net.file", ["-o", tmp_path / "output"]
    if command == "pack":
        checkpoints.save_model(model, file)
    else:
        packed.save(file, model, linear.quantize_weights(model, 4, "symmetric", "channel"))
    argv = [command, file, *(output if command in ("unpack", "pack") else [])]
    (tmp_path / "ran").unlink()
    assert f"--network '{name}'" in failed(capsys, *argv)
    assert not (tmp_path / "ran").exists()
    assert printed(capsys, *argv, "--network", name)
    assert (tmp_path / "ran").exists()


def test_too_large_a_network_is_refused_until_it_is_allowed(capsys, file):
    text = failed(capsys, "verify", file, "--max-elements", 10)
    allowed = text.split("--max-elements ")[1].split()[0]
    assert printed(capsys, "verify", file, "--max-elements", allowed)


def test_a_failed_write_leaves_the_old_file(capsys, file, content, tmp_path):
    source = tmp_path / "net.safetensors"
    source.write_bytes(b"none")
    assert str(source) in failed(capsys, "pack", source, "-o", file)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "argv",
    [
        "",
        "info",
        "show x",
        "unpack x",
        "pack x -o y --bits 1",
        "pack x -o y --bits four",
        "info x --max-elements -1",
    ],
)
def test_a_command_line_that_is_none_is_exit_code_2(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        tool.main(argv.split())
    assert stop.value.code == 2
    assert "usage: python -m stages.tools.packed" in capsys.readouterr().err
