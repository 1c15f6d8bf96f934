"""What a library gets wrong, and the way around it. tests/models says when it is gone.

torch 2.15, CPU: the gradient of a 1×1 convolution with a stride is written past its end,
channels-last, where 2 to 15 channels come in and the batch does not divide by the threads. The
process dies, or computes on with what was overwritten.
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
    """torch.conv2d, which drops the pixels that a 1×1 convolution skips before it computes."""
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
    """While it is entered, what is computed can be differentiated safely; the results are the same,
    and the network cannot tell. Nothing is done for a network without a 1×1 convolution.
    """
    pointwise = any(parameter.shape[2:] == (1, 1) for parameter in model.parameters())
    return _SkippedFirst() if pointwise else nullcontext()
