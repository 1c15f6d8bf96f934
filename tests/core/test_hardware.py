"""What machine this is: found without torch, and the same each time it is asked."""

import ctypes

import pytest

from stages.lib.core import hardware, outputs, requirements
from stages.lib.core.errors import UserError

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
X86_ISA = ["amx_tile", "avx", "avx2", "avx512_bf16", "avx512f", "f16c", "fma", "sse4_1", "sse4_2"]
ARM = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes sha2 crc32 atomics fphp asimdhp asimddp sve i8mm bf16 sme2
CPU implementer\t: 0x41
CPU part\t: 0xd4f
CPU revision\t: 1
"""
ARM_ISA = ["asimd", "asimddp", "asimdhp", "bf16", "fphp", "i8mm", "sme2", "sve"]


@pytest.fixture(autouse=True)
def _ask_the_driver_anew():
    hardware.cuda_devices.cache_clear()
    yield
    hardware.cuda_devices.cache_clear()


# x86's sme is memory encryption, and no arithmetic.
@pytest.mark.parametrize("more", ["", "flush_l1d smep", "fma", "sme sev"])
def test_x86_is_the_first_core_and_its_arithmetic_whatever_varies_between_kernels(more):
    for mhz in ("2700.000", "1200.123"):
        model, isa = hardware.parse_cpuinfo(X86.format(mhz=mhz, more=more))
        assert model == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
        assert isa == X86_ISA


def test_arm_is_its_part_and_its_arithmetic_and_an_odd_text_nothing():
    assert hardware.parse_cpuinfo(ARM) == ("0xd4f", ARM_ISA)
    for text in ("", "nonsense", ":", "processor : 0\n\n"):
        assert hardware.parse_cpuinfo(text) == ("", [])


def test_the_description_is_stable_and_is_read_back(tmp_path):
    description = hardware.describe()
    assert hardware.describe() == description
    outputs.write_json(tmp_path / "hardware.json", description)
    assert hardware.read(tmp_path / "hardware.json") == description
    assert description["cpu"]
    assert description["cores"] >= 1


@pytest.mark.parametrize("torn", [None, b"", b'{"cpu"', b"\xff", b"{}", b"[" * 100_000])
def test_a_torn_description_says_what_to_run(tmp_path, torn):
    path = tmp_path / "hardware.json"
    if torn is not None:
        path.write_bytes(torn)
    with pytest.raises(UserError, match=r"hardware\.json: not .*; run `dvc repro probe/dvc.yaml`$"):
        hardware.read(path)


class Driver:
    """Stands in for libcuda: the devices named, or a call that fails with the error code 100."""

    def __init__(self, *names, failing=""):
        self.names, self.failing = names, failing

    def _code(self, call):
        return 100 if call == self.failing else 0

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
        (None, ()),
        *((Driver("hidden", failing=call), ()) for call in ("init", "count", "get")),
    ],
)
def test_the_driver_names_its_devices(monkeypatch, driver, names):
    def library(name):
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert hardware.cuda_devices() == names
    assert hardware.describe()["gpus"] == list(names)


VERSIONS = {"torch": "2.11.0+cpu", "numpy": "2.4.6"}


@pytest.mark.parametrize(
    ("pins", "note"),
    [
        ("torch==2.11.0 numpy==2.4.6", ""),
        ("", ""),
        ("torch==2.15.0 numpy==2.4.6", "torch 2.11.0 is installed, {} asks for 2.15.0; "),
        ("numpy==2.4.6 scipy==1.0", "scipy is not installed, {} asks for 1.0; "),
        ("torch==3 numpy==3 scipy==3", "{} asks for 3 (2 more packages differ); "),
    ],
)
def test_what_is_not_installed_as_required_is_a_line(tmp_path, monkeypatch, pins, note):
    def version(name):
        if name not in VERSIONS:
            raise requirements.metadata.PackageNotFoundError
        return VERSIONS[name]

    monkeypatch.setattr(requirements.metadata, "version", version)
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\n" + pins.replace(" ", "\n") + "\n")
    said = requirements.note(file)
    assert note.format(file) in said
    assert bool(note) == said.endswith("results may differ")


def test_the_isa_that_kernels_choose_by_is_named_in_one_order():
    isa = ["amx_tile", "avx", "avx512_vnni", "avx2", "fma"]
    assert hardware.kernel_isa(isa) == "avx2 avx512_vnni"
    assert hardware.kernel_isa([]) == ""
