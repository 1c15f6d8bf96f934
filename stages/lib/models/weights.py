"""Reads the user's weights, a safetensors file or a state dict of torch.save, without running code,
and loads them into the network.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.models import torchvision_models

# Keys under which training scripts store a state dict, and prefixes of wrapped networks.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# Batch norm's step counter, which older files lack and nothing here reads.
OPTIONAL = "num_batches_tracked"
# Names in torchvision's DenseNet files, written when module names could contain dots.
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")


def _unwrapped(stored: Any, path: Path) -> dict[str, torch.Tensor]:
    while isinstance(stored, Mapping):
        inner = (stored[key] for key in WRAPPERS if isinstance(stored.get(key), Mapping))
        wrapped = next(inner, None)
        if wrapped is None:
            break
        stored = wrapped
    tensors = isinstance(stored, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in stored.items()
    )
    if not tensors or not stored:
        raise UserError(
            f"model.weights: {path} holds no state dict; save it with"
            " torch.save of model.state_dict() or safetensors' save_file"
        )
    while prefix := next((one for one in PREFIXES if all(n.startswith(one) for n in stored)), None):
        stored = {name.removeprefix(prefix): value for name, value in stored.items()}
    return dict(stored)


def read(path: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict from .safetensors or from a file of torch.save, to the CPU.

    UserError if the file is missing or damaged, holds no state dict, or is a pickle that wants to
    run code. Only tensors are unpickled.
    """
    if not path.is_file():
        raise UserError(f"model.weights: {path}: not found; give a file's path, or none")
    try:
        if path.suffix == paths.SAFETENSORS:
            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise UserError(
            f"model.weights: {path} holds more than the tensors of a state dict; a pickle that"
            " wants to run code is never loaded; save model.state_dict() alone"
        ) from None
    except Exception:  # noqa: BLE001 - a damaged pickle may raise anything
        kind = "safetensors file" if path.suffix == paths.SAFETENSORS else "file of torch.save"
        raise UserError(f"model.weights: {path}: not a whole {kind}") from None
    return _unwrapped(stored, path)


def fit(
    model: nn.Module, stored: Mapping[str, torch.Tensor], classes: int, path: Path
) -> list[str]:
    """Loads the weights into the network, in place. Returns the names of the tensors that start
    fresh: those of a head for another number of classes.

    A first convolution for three channels is summed over them if the images have one channel.

    stored: the weights, by name.
    classes: the number of classes of the data.
    path: is named in errors.

    Raises UserError with the names of other tensors that are missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    stored = {
        name if name in wanted else OLD_DENSENET.sub(r"\1\2", name): value
        for name, value in stored.items()
    }
    stem = f"{torchvision_models.first_convolution(model)}.weight"
    loaded, fresh, misfits = {}, [], []
    for name, target in wanted.items():
        if name not in stored:
            continue
        given = stored[name]
        real = given.is_floating_point() or not target.is_floating_point()
        if not real or given.layout is not torch.strided or given.is_meta:
            kind = f"{given.dtype}, {given.device.type}, {given.layout}"
            misfits.append(f"{name} of {kind} for {target.dtype}")
            continue
        if name == stem and given.dim() == 4 and given.shape[1] == 3 and target.shape[1] == 1:
            given = given.sum(1, keepdim=True)
        if given.shape == target.shape:
            loaded[name] = given
        elif target.shape[:1] == (classes,) and given.shape[1:] == target.shape[1:]:
            fresh.append(name)  # a head for another number of classes
        else:
            misfits.append(f"{name} {list(given.shape)} for {list(target.shape)}")
    missing = [name for name in wanted if name not in stored and not name.endswith(OPTIONAL)]
    left_over = [name for name in stored if name not in wanted and not name.startswith(AUXILIARY)]
    for what, names in {
        "lacks": missing, "has, unknown to the network,": left_over, "has misfitting": misfits,
    }.items():  # fmt: skip
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"model.weights: {path} {what} {', '.join(names[:3])}{more}; model.name (or"
                " model.width) is another network than the one they belong to"
            )
    if not all(bool(torch.isfinite(value).all()) for value in loaded.values()):
        raise UserError(f"model.weights: {path} holds values that are infinite or undefined")
    model.load_state_dict({**wanted, **loaded})
    return fresh
