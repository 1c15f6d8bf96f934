"""torch.compile with a time limit, if this machine has a compiler."""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import nn

from stages.lib.core.errors import UserError


class _TooLongError(BaseException):
    """Not an Exception, because torch's compiler catches those."""


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


def compile_for(model: nn.Module, batch: torch.Tensor, seconds: float) -> nn.Module:
    """The network compiled for `batch`, float32 [n, c, h, w], after one call with it. Only for the
    main thread. UserError if there is no compiler, or it takes longer than `seconds`.
    """
    default = "clang++" if sys.platform == "darwin" else "g++"
    if shutil.which(os.environ.get("CXX", default)) is None:
        raise UserError("no C++ compiler for torch.compile")
    # Its compiler imports a module that warns where there is no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    network = torch.compile(model, dynamic=False)
    try:
        with _within(seconds), torch.inference_mode():
            network(batch)
    except _TooLongError:
        raise UserError(f"torch.compile took more than {seconds:g} s") from None
    return network
