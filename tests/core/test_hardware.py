"""What machine this is: found without torch, and the same each time it is asked."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest

from stages import probe_hardware
from stages.lib.core import hardware, paths

ROOT = Path(__file__).parents[2]

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
cpu MHz\t\t: {mhz}
flags\t\t: fpu vme sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 avx512f avx512_bf16 amx_tile {more}
bogomips\t: 5400.00

processor\t: 1
model name\t: another core's name
flags\t\t: avx10
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes sha2 crc32 atomics fphp asimdhp asimddp sve i8mm bf16 sme2
CPU implementer\t: 0x41
CPU part\t: 0xd4f
CPU revision\t: 1
"""


@pytest.fixture(autouse=True)
def _ask_the_driver_anew():
    hardware.cuda_devices.cache_clear()
    yield
    hardware.cuda_devices.cache_clear()


def test_x86_gives_the_first_core_and_its_arithmetic():
    model, isa = hardware.parse_cpuinfo(X86.format(mhz="2700.000", more=""))
    assert model == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert isa == [
        "amx_tile",
        "avx",
        "avx2",
        "avx512_bf16",
        "avx512f",
        "f16c",
        "fma",
        "sse4_1",
        "sse4_2",
    ]


def test_arm_gives_the_part_and_its_arithmetic():
    model, isa = hardware.parse_cpuinfo(ARM)
    assert model == "0xd4f"
    assert isa == ["asimd", "asimddp", "asimdhp", "bf16", "fphp", "i8mm", "sme2", "sve"]


@pytest.mark.parametrize(
    "more", ["md_clear", "flush_l1d arch_capabilities", "smep smap smx", "fma"]
)
def test_flags_that_vary_between_kernels_do_not_make_another_machine(more):
    known = hardware.parse_cpuinfo(X86.format(mhz="2700.000", more=""))
    assert hardware.parse_cpuinfo(X86.format(mhz="1200.123", more=more)) == known


def test_memory_encryption_is_no_arithmetic():
    _, isa = hardware.parse_cpuinfo(X86.format(mhz="2700.000", more="sme sev"))
    assert "sme" not in isa


@pytest.mark.parametrize("text", ["", "nonsense", ":", "processor : 0\n\n"])
def test_an_odd_cpuinfo_says_nothing(text):
    assert hardware.parse_cpuinfo(text) == ("", [])


def test_the_description_is_stable():
    assert hardware.describe() == hardware.describe()


def test_the_description_survives_json():
    found = hardware.describe()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_description_names_the_processor_and_at_least_one_core():
    found = hardware.describe()
    assert found["cpu"]
    assert found["cores"] >= 1


def test_the_probe_imports_no_torch():
    script = "import sys, stages.probe_hardware; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_no_driver_means_no_devices(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert hardware.cuda_devices() == ()


class Driver:
    """Stands in for libcuda: the devices named, or a call that fails with the error code 100."""

    def __init__(self, *names, failing=()):
        self.names = names
        self.failing = failing

    def _code(self, call):
        return 100 if call in self.failing else 0

    def cuInit(self, flags):  # noqa: N802
        return self._code("init")

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.names)
        return self._code("count")

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = 7 + index
        return self._code("get")

    def cuDeviceGetName(self, name, length, device):  # noqa: N802
        name.value = self.names[device.value - 7].encode()[: length - 1]
        return 0


@pytest.mark.parametrize(
    ("driver", "names"),
    [
        (Driver("NVIDIA H200"), ("NVIDIA H200",)),
        (Driver("first", "second"), ("first", "second")),
        (Driver(), ()),
        (Driver("hidden", failing=["init"]), ()),
        (Driver("hidden", failing=["count"]), ()),
        (Driver("hidden", failing=["get"]), ()),
    ],
)
def test_the_driver_names_its_devices(monkeypatch, driver, names):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert hardware.cuda_devices() == names
    assert hardware.describe()["gpus"] == list(names)


@pytest.fixture
def probed(tmp_path, monkeypatch):
    """The file that the probe has written once."""
    monkeypatch.chdir(tmp_path)
    probe_hardware.main(None)
    return tmp_path / paths.HARDWARE


def test_the_probe_leaves_the_file_of_the_same_machine_alone(probed):
    before = probed.stat()
    probe_hardware.main(None)
    after = probed.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_probe_rewrites_the_file_of_another_machine(probed, monkeypatch):
    other = hardware.describe() | {"cpu": "another processor"}
    monkeypatch.setattr(hardware, "describe", lambda: other)
    probe_hardware.main(None)
    assert json.loads(probed.read_text(encoding="utf-8")) == other


@pytest.mark.parametrize("torn", [b"", b'{"cpu"', b"\xff"])
def test_the_probe_rewrites_a_torn_file(probed, torn):
    probed.write_bytes(torn)
    probe_hardware.main(None)
    assert json.loads(probed.read_text(encoding="utf-8")) == hardware.describe()
