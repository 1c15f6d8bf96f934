"""Networks by name. An architecture is a plain dict from which a network is built.

The dict is stored in every model file, so that a new process can rebuild the network from the file
alone (and, for a custom network, the user's unchanged Python file).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stages.lib.core import custom_model, network_names
from stages.lib.core.errors import UserError, reason
from stages.lib.models import convnet, head, origins, resizing, resnet, torchvision_models

Architecture = dict[str, Any]

# The key of the sizes that removed filters changed; absent if none were removed.
RESIZED = "resized"


def architecture(
    name: str,
    width: int,
    in_channels: int,
    classes: int,
    image_size: Sequence[int] = (32, 32),
    logits: tuple[int, Sequence[int]] | None = None,
) -> Architecture:
    """The unpruned network that the params describe.

    name: a registered name, or `path/to/file.py:factory`.
    width: of the ConvNet; other networks ignore it.
    image_size: (height, width).
    logits: how many the user's own network has, and which of them are the classes; None: those.

    Raises UserError if the user's file is missing.
    """
    if name not in network_names.NAMES and not custom_model.is_own(name):
        raise ValueError(f"no network is called {name}")
    common = {"name": name, "in_channels": in_channels}
    if name == "convnet":
        return {**common, **convnet.sizes(width), "classes": classes}
    if name in network_names.OWN:
        return {**common, "classes": classes}
    common |= {"image_size": list(image_size), "classes": classes}
    if not custom_model.is_own(name):
        return common
    custom_model.must_exist(name)
    kept = {"logits": logits[0], "kept": list(logits[1])} if logits else {}
    return {**common, "code": custom_model.fingerprint(name), **kept}


def dense_architecture(description: Architecture) -> Architecture:
    """The architecture of the unpruned network that a description belongs to."""
    return {key: value for key, value in dict(description).items() if key != RESIZED}


def portable(description: Architecture) -> Architecture:
    """An architecture as files hold it, which may be handed over: without absolute paths."""
    return {**description, "name": custom_model.portable(description["name"])}


def _build_custom(
    name: str,
    code: str,
    in_channels: int,
    image_size: list[int],
    classes: int,
    logits: int | None = None,
    kept: Sequence[int] = (),
) -> nn.Module:
    if custom_model.fingerprint(name) != code:
        raise UserError(
            f"{custom_model.split(name)[0]} has changed, or is gone, since the network was made"
            " from it; run `dvc repro`, or bring that version back"
        )
    size = image_size[0] if len(set(image_size)) == 1 else tuple(image_size)
    offered = {"num_classes": logits or classes, "in_channels": in_channels, "image_size": size}
    model = custom_model.call(name, offered)
    if not isinstance(model, nn.Module):
        raise UserError(f"model.name: {name} returned no torch.nn.Module")
    _materialize(model, name, (in_channels, *image_size))
    if logits:
        head.keep_(model, logits, kept)
    return model


def _materialize(model: nn.Module, name: str, image_shape: Sequence[int]) -> None:
    """Gives lazy layers their sizes, by a forward pass as torch asks for."""
    if not any(map(torch.nn.parameter.is_lazy, [*model.parameters(), *model.buffers()])):
        return
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, *image_shape))
    except Exception as error:  # noqa: BLE001 - any network may be named
        raise UserError(
            f"model.name: {name} has lazy layers, and its forward fails on images of"
            f" {'×'.join(map(str, image_shape))} ({reason(error)})"
        ) from None
    model.train(training)


def _build(name: object = None, **sizes: Any) -> nn.Module:
    if name == "convnet":
        return convnet.ConvNet(**sizes)
    if name in network_names.OWN:
        return resnet.ResNet(int(name.removeprefix("resnet")), **sizes)
    if name in network_names.TORCHVISION:
        return torchvision_models.build(name, **sizes)
    if isinstance(name, str) and custom_model.is_own(name):
        return _build_custom(name, **sizes)
    raise ValueError(f"no network is called {name}")


def build(description: Architecture) -> nn.Module:
    """An unpruned network of this architecture with new weights from torch's global random stream.

    Raises ValueError or TypeError if the description is not an architecture, UserError if it
    cannot be built.
    """
    unpruned = dense_architecture(description)
    model = _build(**unpruned)
    origins.keep(model, origins.Origin(unpruned, resizing.sizes(model)))
    return model


def rebuild(description: Architecture, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """The network of this architecture with these weights, also if filters were removed.

    Raises KeyError, RuntimeError, TypeError or ValueError if the two do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        model = build(description)
    if RESIZED in description:
        resizing.apply_(model, description[RESIZED], tensors)
    model.load_state_dict(tensors)
    return model


def build_seeded(description: Architecture, seed: int) -> nn.Module:
    """As `build`, with weights that depend only on the seed. The global random stream is unchanged
    afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(description)


def architecture_of(model: nn.Module) -> Architecture:
    """The present architecture of a network that `build` made, with the sizes that removed filters
    changed.
    """
    origin = origins.find(model)
    changed = resizing.changes(origin.sizes, resizing.sizes(model))
    return origin.architecture | ({RESIZED: changed} if changed else {})
