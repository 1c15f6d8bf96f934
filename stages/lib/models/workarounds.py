"""Workarounds for faults of libraries. A test in tests/models says when a fault is gone.

torch 2.15, CPU, channels-last: the gradient of a strided 1×1 convolution is written past its end if
there are 2 to 15 input channels and the batch size is not a multiple of the number of threads. The
process crashes, or goes on with overwritten memory.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else (*value, *value)[:2]


def _unstrided(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """torch.conv2d that first drops the pixels that a strided 1×1 convolution skips."""
    unpadded = padding == "valid" or (padding != "same" and _pair(padding) == (0, 0))
    if unpadded and weight.shape[2:] == (1, 1) and _pair(stride) != (1, 1):
        rows, columns = _pair(stride)
        input, stride = input[..., ::rows, ::columns], 1
    return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)


class _SkippedFirst(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), keywords=None):
        function = _unstrided if function is torch.conv2d else function
        return function(*arguments, **(keywords or {}))


def strided_convolutions(model: nn.Module) -> AbstractContextManager:
    """While it is entered, gradients of strided 1×1 convolutions are safe. Results are the same,
    and the network's modules are not changed. Does nothing for a network without a 1×1 convolution.
    """
    pointwise = any(parameter.shape[2:] == (1, 1) for parameter in model.parameters())
    return _SkippedFirst() if pointwise else nullcontext()
