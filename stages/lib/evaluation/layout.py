"""Which memory layout a network's images and convolutions get.

Channels-last is the layout of the fast kernels. Some networks are wrong in it, or do not run (a
`view` after a convolution). It is used where a trial gives the same outputs and gradients.
"""

from collections.abc import Sequence

import torch
from torch import nn

from stages.lib.evaluation import device
from stages.lib.models import workarounds
from stages.lib.models.modes import gradients
from stages.lib.models.origins import copied

FAST, PLAIN = torch.channels_last, torch.contiguous_format
# Relative to the largest value: sums run in another order.
TOLERANCE = 1e-3
IMAGES = 4


def _trial(
    model: nn.Module, images: torch.Tensor, layout: torch.memory_format
) -> list[torch.Tensor]:
    """The logits and gradients of a copy of the network in a layout."""
    network = device.place(copied(model), torch.device("cpu"), layout)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    # Training alone may fail too; but there, dropout differs in each layout.
    for training in (True, False):
        inputs = images.clone(memory_format=layout)
        with workarounds.strided_convolutions(network):
            logits = network.train(training)(inputs)
            found = gradients((logits * logits.detach().sign()).sum(), trained)
    used = (gradient for gradient in found if gradient is not None)
    return [logits.detach(), *used]


def fastest(model: nn.Module, image_shape: Sequence[int]) -> torch.memory_format:
    """Channels-last if the network computes the same in it, else torch's usual layout.

    image_shape: (channels, height, width).
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return PLAIN  # the workaround does not reach into it
    images = torch.randn(IMAGES, *image_shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            plain = _trial(model, images, PLAIN)
            fast = _trial(model, images, FAST)
    except Exception:  # noqa: BLE001 - any network may be named, and what fails is not used
        return PLAIN
    same = len(plain) == len(fast) and all(
        one.shape == other.shape
        and float((one - other).abs().max()) <= TOLERANCE * float(one.abs().max())
        for one, other in zip(plain, fast, strict=True)
        if one.numel()
    )
    return FAST if same else PLAIN
