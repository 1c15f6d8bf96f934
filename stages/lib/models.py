"""Networks by name: an architecture is a plain dict that builds, and is read off, a network.

The dict travels in every model file, so that a fresh process rebuilds the network from the
file alone.
"""

from typing import Any

import torch
from torch import nn

from stages.lib import convnet

Architecture = dict[str, Any]


def architecture(name: str, width: int, in_channels: int, classes: int) -> Architecture:
    """The unpruned network that the params describe. name: one of params.MODELS."""
    if name != "convnet":
        raise ValueError(f"no network is called {name}")
    return {
        "name": name,
        "in_channels": in_channels,
        **convnet.sizes(width),
        "classes": classes,
    }


def build(description: Architecture) -> nn.Module:
    """A network of this architecture with fresh weights from torch's global random stream.

    Raises ValueError or TypeError where the description is not one of ours.
    """
    sizes = dict(description)
    name = sizes.pop("name", None)
    if name != "convnet":
        raise ValueError(f"no network is called {name}")
    return convnet.ConvNet(**sizes)


def build_seeded(description: Architecture, seed: int) -> nn.Module:
    """As `build`, with weights that depend on the seed alone; the global random stream is left as
    it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(description)


def architecture_of(model: nn.Module) -> Architecture:
    """The architecture of a network as it is now, smaller where filters were removed."""
    return {
        "name": "convnet",
        "in_channels": model.conv1.in_channels,
        **convnet.sizes_of(model),
        "classes": model.classifier.out_features,
    }
