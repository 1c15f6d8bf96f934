"""Setting torch up so that one machine gives the same bits every time, and gives them fast."""

import ctypes
import os
import sys

import torch
from torch import nn

from stages.lib.core import hardware
from stages.lib.core.errors import UserError

# glibc's names for mallopt's settings, and the largest threshold that it accepts.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 32 * 2**20


def _keep_memory() -> None:
    """Has glibc reuse the memory of freed tensors instead of giving it back to the system.

    By default each large tensor is mapped anew, and the system clears its pages anew: a seventh of
    a training step of the ConvNet at 32×32, measured on two cores.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def configure(device: str, threads: int) -> torch.device:
    """Fixes the thread count, asks for deterministic algorithms and resolves `auto`.

    device: auto, cpu or cuda. Raises UserError for cuda where this torch cannot use it.
    """
    # cuBLAS is deterministic only with a fixed workspace, and reads this before its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _keep_memory()
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms(True), without its two-second import of the compiler.
    torch.set_deterministic_debug_mode("error")
    # It would also fill all fresh memory, a sixteenth of a training step, against reading what was
    # never written. No operation here does.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    # What is called float32 is float32: a GPU's TF32 has ten bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: cuda, but this torch has no CUDA; allowed: auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What convolutions and matrix products compute in while training: float32, or bfloat16 under
    autocast (weights, their updates and batch norm's statistics stay float32).

    precision: auto takes bfloat16 where the device has it natively.
    """
    if precision == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else hardware.native_bfloat16()
        )
        precision = "bfloat16" if native else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, its convolutions channels-last: the layout of the fast kernels."""
    return model.to(device)._apply(
        lambda tensor: tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
    )


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU random stream of its own for each purpose, so that no draw shifts another's.

    The same (seed, purpose) gives the same numbers, in whatever order streams are made.
    """
    mixed = int.from_bytes(f"{seed}/{purpose}".encode(), "little")
    return torch.Generator().manual_seed(mixed % (2**61 - 1))
