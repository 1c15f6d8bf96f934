"""Describes this machine, without torch and in milliseconds, because every `dvc repro` does it.

The CUDA driver is asked directly, because it respects CUDA_VISIBLE_DEVICES; NVML (nvidia-ml-py)
lists all devices and numbers them differently. /proc/cpuinfo is read directly, because py-cpuinfo's
get_cpu_info starts processes and takes a second.
"""

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.lib.core import outputs
from stages.lib.core.errors import UserError

REMEDY = "run `dvc repro probe/dvc.yaml`"

# The instruction sets that change how fast a network runs. The other flags differ between kernels
# on one machine and would make it look like another machine.
_X86_ISA = re.compile(r"avx\w*|amx\w*|fma\w*|f16c|sse4_[12]")
_ARM_ISA = re.compile(r"asimd\w*|neon\w*|fp16\w*|fphp|bf16|i8mm|dotprod|sve\w*|sme\d?")
MACHINE = ("system", "machine", "cpu", "isa", "cores", "gpus")
SOFTWARE = ("python", "torch", "torchvision")
KEYS = (*MACHINE, *SOFTWARE)
# Instructions that multiply 16-bit floats; f16c and avx512f only convert them.
HALF_INSTRUCTIONS = {
    "float16": {"avx512_fp16", "amx_fp16", "fp16", "fphp", "asimdhp"},
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
}
# x86 instructions that add products of 8-bit integers in 32 bits.
WIDE_INT8_SUMS = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"}
# The instruction sets that decide the speed of int8, float32 and bfloat16 kernels.
KERNEL_ISA = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "avx512_bf16",
    "amx_bf16", "asimd", "asimddp", "dotprod", "i8mm", "bf16", "sve", "sme",
)  # fmt: skip


@cache
def cuda_devices() -> tuple[str, ...]:
    """Names of the CUDA devices that this process may use; empty without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for index in range(count.value):
        device = ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        if driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            driver.cuDeviceGetName(name, len(name), device)
            names.append(name.value.decode(errors="replace"))
    return tuple(names)


def parse_cpuinfo(text: str) -> tuple[str, list[str]]:
    """The CPU model and its sorted arithmetic instruction sets, from the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    # x86 and ARM apart: on x86, sme is memory encryption.
    isa, flags = (
        (_X86_ISA, fields["flags"]) if "flags" in fields else (_ARM_ISA, fields.get("features", ""))
    )
    model = fields.get("model name") or fields.get("cpu part", "")
    return model, sorted({flag for flag in flags.split() if isa.fullmatch(flag)})


def _cpu() -> tuple[str, list[str]]:
    """The CPU model and its instruction sets, which only Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    model, flags = "", []
    if cpuinfo.exists():
        model, flags = parse_cpuinfo(cpuinfo.read_text(errors="replace"))
    elif platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        model = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return model or platform.processor() or platform.machine(), flags


def native_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions that torch's wheels use."""
    return not HALF_INSTRUCTIONS["bfloat16"].isdisjoint(_cpu()[1])


def int8_saturates(machine: str, isa: Sequence[str]) -> bool:
    """Whether int8 kernels of this CPU add two products of 8-bit integers in 16 bits. On x86
    without VNNI or AMX, uint8 × int8 saturates silently above 32767 (255 × 127 × 2 = 64770); with
    7-bit weights it does not (255 × 64 × 2 = 32640).

    machine, isa: as in `describe`.
    """
    x86 = machine.lower() in ("x86_64", "amd64", "i386", "i686")
    return x86 and WIDE_INT8_SUMS.isdisjoint(isa)


def kernel_isa(isa: Sequence[str]) -> str:
    """The instruction sets of `isa` that decide the speed of kernels, such as "avx2 avx512f"."""
    return " ".join(name for name in KERNEL_ISA if name in isa)


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read(path: Path) -> dict[str, Any]:
    """Reads a description of `describe` from its file. UserError if it is missing or damaged."""
    description = outputs.read_json(path, REMEDY)
    if not isinstance(description, dict) or set(description) != set(KEYS):
        raise UserError(f"{path}: not a description of a machine; {REMEDY}")
    return description


def describe() -> dict[str, Any]:
    """What decides latencies: system, CPU, instruction sets, cores, GPUs, and torch's version."""
    model, flags = _cpu()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": model,
        "isa": flags,
        "cores": cores(),
        "gpus": list(cuda_devices()),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "torchvision": metadata.version("torchvision"),
    }
