"""Configures torch so that a machine gives the same bits in every run, fast."""

import ctypes
import hashlib
import os
import sys
import warnings

import torch
from torch import nn

from stages.lib.core import hardware
from stages.lib.core.errors import UserError

# glibc's names for mallopt's settings, and the largest threshold that it accepts.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 32 * 2**20


def _keep_memory() -> None:
    """Makes glibc reuse the memory of freed tensors instead of returning it to the system.

    By default the system maps and clears new pages for each large tensor. That takes a seventh of a
    training step of the ConvNet at 32×32 pixels, measured on two cores.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def configure(device: str, threads: int) -> torch.device:
    """Sets the thread count, selects deterministic algorithms and resolves `auto`.

    device: auto, cpu or cuda. Raises UserError for cuda if this torch cannot use it.
    """
    # cuBLAS is deterministic only with a fixed workspace. It reads this before its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _keep_memory()
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms, without its two-second import of the compiler. It
    # warns of operations that have no fixed order; `network_check` says so once, in its own words.
    torch.set_deterministic_debug_mode("warn")
    warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
    # That would also fill all new memory, in case it is read before it is written: a sixteenth of a
    # training step. No operation here needs it.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    # float32 means float32 here: a GPU's TF32 has ten bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: cuda, but this torch has no CUDA; allowed: auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of convolutions and matrix products while training: float32, or bfloat16
    under autocast (weights, their updates and batch norm's statistics stay float32).

    precision: float32, bfloat16, or auto (bfloat16 if the device computes in it natively).
    """
    if precision == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else hardware.native_bfloat16()
        )
        precision = "bfloat16" if native else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def place(
    model: nn.Module,
    device: torch.device,
    layout: torch.memory_format = torch.channels_last,
) -> nn.Module:
    """The network on the device, its convolutions in this memory layout."""
    return model.to(device)._apply(
        lambda tensor: tensor.to(memory_format=layout) if tensor.dim() == 4 else tensor
    )


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU random stream for one purpose. Each purpose has its own, so draws do not affect others.

    The same (seed, purpose) always gives the same numbers.
    """
    # torch's CPU stream depends on no more than 32 bits of its seed.
    mixed = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4]
    return torch.Generator().manual_seed(int.from_bytes(mixed))
