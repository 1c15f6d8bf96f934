"""Setting torch up so that one machine gives the same bits every time."""

import os

import torch

from stages.lib.errors import UserError


def configure(device: str, threads: int) -> torch.device:
    """Fixes the thread count, asks for deterministic algorithms and resolves `auto`.

    device: auto, cpu or cuda. Raises UserError for cuda where this torch cannot use it.
    """
    # cuBLAS is deterministic only with a fixed workspace, and reads this before its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms(True), without its two-second import of the compiler.
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.benchmark = False
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: cuda, but this torch has no CUDA; allowed: auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU random stream of its own for each purpose, so that no draw shifts another's.

    The same (seed, purpose) gives the same numbers, in whatever order streams are made.
    """
    mixed = int.from_bytes(f"{seed}/{purpose}".encode(), "little")
    return torch.Generator().manual_seed(mixed % (2**61 - 1))
