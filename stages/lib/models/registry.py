"""Networks by name. An architecture is a plain dict from which a network is built.

The dict is stored in every model file, so that a new process can rebuild the network from the file
alone (and, for a custom network, the user's unchanged Python file).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core import custom_model, network_names
from stages.lib.core.errors import UserError, reason
from stages.lib.models import convnet, head, resizing, resnet, torchvision_models
from stages.lib.models.modes import evaluating

Architecture = dict[str, Any]

# The key of the sizes that removed filters changed; absent if none were removed.
RESIZED = "resized"


class Unpruned(NamedTuple):
    """The unpruned network's architecture and layer sizes. Each network that `build` made keeps it,
    also when it is copied or loses filters.
    """

    architecture: Architecture
    sizes: resizing.Sizes


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
    if logits:
        head.keep_(model, logits, kept)
    return model


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
    model._unpruned = Unpruned(unpruned, resizing.sizes(model))
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
    changed = resizing.changes(model._unpruned.sizes, resizing.sizes(model))
    return model._unpruned.architecture | ({RESIZED: changed} if changed else {})


def check(model: nn.Module, image_shape: Sequence[int], classes: int) -> None:
    """Runs the network on two images. UserError if it fails or does not return a logit per class.

    image_shape: (channels, height, width).
    """
    name = model._unpruned.architecture["name"]
    first = next(model.parameters(), None)
    if first is None:
        raise UserError(f"model.name: {name} has no parameters; keep its layers as attributes")
    odd = [key for key, value in model.state_dict().items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise UserError(
            f"model.name: {name} keeps state that is no tensor ({odd[0]}), which no model file"
            " takes; do without get_extra_state"
        )
    try:
        with torch.inference_mode(), evaluating(model):
            logits = model(torch.zeros(2, *image_shape, device=first.device))
    except Exception as error:  # noqa: BLE001 - any network may be named
        raise UserError(
            f"model.name: {name} cannot take images of {'×'.join(map(str, image_shape))}"
            f" ({reason(error)}); set data.image_size to what it needs"
        ) from None
    if not isinstance(logits, torch.Tensor):
        answer, remedy = f"a {type(logits).__name__}", "return the logits alone"
    elif logits.shape != (2, classes):
        answer, remedy = list(logits.shape), "let the factory take num_classes"
    else:
        return
    raise UserError(
        f"model.name: {name} answers two images with {answer} where a tensor [2, {classes}] is"
        f" wanted, a logit per class; {remedy}"
    )
