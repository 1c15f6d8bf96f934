"""torch.compile, where this machine has what it needs, and for no longer than one will wait."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import torch
from torch import nn


class Compiled(NamedTuple):
    """network: compiled, or None, and note says why not."""

    network: nn.Module | None
    note: str = ""


class _TooLongError(BaseException):
    """No Exception: the compiler catches those."""


def compiler() -> str | None:
    """The C++ compiler that torch.compile would call on a CPU, or None where there is none."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", default))


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def compile_for(model: nn.Module, batch: torch.Tensor, seconds: float) -> Compiled:
    """The network compiled for `batch`, float32 [n, c, h, w], and called once with it; given up
    after `seconds`. Main thread only.
    """
    if compiler() is None:
        return Compiled(None, "no C++ compiler for torch.compile")
    network = torch.compile(model, dynamic=False)
    try:
        with _within(seconds), torch.inference_mode():
            network(batch)
    except _TooLongError:
        return Compiled(None, f"torch.compile took more than {seconds:g} s")
    except Exception as error:  # noqa: BLE001 - any network, any compiler
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Compiled(None, f"torch.compile failed ({reason[:100]})")
    return Compiled(network)
