"""The user's weights to start from: a safetensors file or a state dict of torch.save, read without
running code, and fitted to the network.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.models import torchvision_models

# What training scripts wrap a state dict in, and what wrapping a network puts before each name.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# Batch norm's count of steps, which older files lack and nothing here reads.
OPTIONAL = "num_batches_tracked"
# Names in torchvision's DenseNet files, from before module names could hold no dot.
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")


class Fitted(NamedTuple):
    """The network, and the names of its tensors that the weights had no fitting value for."""

    model: nn.Module
    fresh: list[str]


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
    """A state dict, by name, on the CPU: .safetensors, or what torch.save wrote.

    UserError where the file is missing or torn, holds no state dict, or is a pickle that wants to
    run code: nothing but tensors is ever unpickled.
    """
    if not path.is_file():
        raise UserError(f"model.weights: {path}: not found; give a file's path, or none")
    if path.suffix == paths.SAFETENSORS:
        try:
            return _unwrapped(load_file(path), path)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"model.weights: {path}: not a whole safetensors file ({error})"
            ) from None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise UserError(
            f"model.weights: {path} holds more than the tensors of a state dict; a pickle that"
            " wants to run code is never loaded; save model.state_dict() alone"
        ) from None
    except Exception:  # noqa: BLE001 - a damaged pickle may raise anything
        raise UserError(f"model.weights: {path}: not a whole file of torch.save") from None
    return _unwrapped(stored, path)


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_head(wanted: torch.Tensor, given: torch.Tensor, classes: int) -> bool:
    """Whether two tensors differ in the number of classes alone."""
    return (
        wanted.shape[:1] == (classes,)
        and given.dim() == wanted.dim()
        and given.shape[1:] == wanted.shape[1:]
    )


def _is_plain(given: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether a tensor holds its values one by one, and real numbers where these are wanted."""
    real = given.is_floating_point() or not wanted.is_floating_point()
    return real and given.layout is torch.strided and not given.is_meta


def fit(model: nn.Module, stored: Mapping[str, torch.Tensor], classes: int, path: Path) -> Fitted:
    """Loads the weights into the network, in place.

    A head for another number of classes stays as the network has it (fresh); a first convolution
    for three channels is summed over them where the data has one. Anything else that is missing,
    left over or of another shape is a UserError with the names.
    """
    wanted = model.state_dict()
    stored = {
        name if name in wanted else OLD_DENSENET.sub(r"\1\2", name): value
        for name, value in stored.items()
    }
    stem = (
        f"{torchvision_models.first_convolution(model)[0]}.weight"
        if _has_convolution(model)
        else ""
    )
    left_over = [name for name in stored if name not in wanted and not name.startswith(AUXILIARY)]
    missing = [name for name in wanted if name not in stored and not name.endswith(OPTIONAL)]
    loaded, fresh, misfit = {}, [], []
    for name, target in wanted.items():
        if name not in stored:
            continue
        given = stored[name]
        if not _is_plain(given, target):
            kind = f"{given.dtype}, {given.device.type}, {given.layout}"
            misfit.append(f"{name} of {kind} for {target.dtype}")
            continue
        if name == stem and given.dim() == 4 and given.shape[1] == 3 and target.shape[1] == 1:
            given = given.sum(1, keepdim=True)
        if given.shape == target.shape:
            loaded[name] = given
        elif _is_head(target, given, classes):
            fresh.append(name)
        else:
            misfit.append(f"{name} {list(given.shape)} for {list(target.shape)}")
    for names, what in (
        (missing, "lacks"), (left_over, "has, unknown to the network,"), (misfit, "has misfitting"),
    ):  # fmt: skip
        if names:
            raise UserError(
                f"model.weights: {path} {what} {_names(names)}; model.name (or model.width) is"
                " another network than the one they belong to"
            )
    if not all(bool(torch.isfinite(value).all()) for value in loaded.values()):
        raise UserError(f"model.weights: {path} holds values that are infinite or undefined")
    model.load_state_dict({**wanted, **loaded})
    return Fitted(model, fresh)


def _has_convolution(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())
