"""The user's weights to start from: a safetensors file or a state dict of torch.save, read without
running code, and fitted to the network.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from stages.lib import families, paths
from stages.lib.errors import UserError

# What training scripts wrap a state dict in, and what DataParallel puts before each name.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


class Fitted(NamedTuple):
    """The network, and the names of its tensors that the weights had no fitting value for."""

    model: nn.Module
    fresh: list[str]


def _unwrapped(stored: Any, path: Path) -> dict[str, torch.Tensor]:
    for key in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    tensors = isinstance(stored, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in stored.items()
    )
    if not tensors or not stored:
        raise UserError(
            f"model.weights: {path} holds no state dict; save it with"
            " torch.save of model.state_dict() or safetensors' save_file"
        )
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in stored):
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
        code = zipfile.is_zipfile(path)
        raise UserError(
            f"model.weights: {path} holds more than tensors: it is a pickle that wants to run code"
            " and was not loaded; save model.state_dict() alone"
            if code
            else f"model.weights: {path}: not a state dict of torch.save, or one that wants to run"
            " code; not loaded"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError):
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


def fit(model: nn.Module, stored: Mapping[str, torch.Tensor], classes: int, path: Path) -> Fitted:
    """Loads the weights into the network, in place.

    A head for another number of classes stays as the network has it (fresh); a first convolution
    for three channels is summed over them where the data has one. Anything else that is missing,
    left over or of another shape is a UserError with the names.
    """
    wanted = model.state_dict()
    stem = f"{families.first_convolution(model)[0]}.weight" if _has_convolution(model) else ""
    left_over = [name for name in stored if name not in wanted and not name.startswith(AUXILIARY)]
    missing = [name for name in wanted if name not in stored]
    loaded, fresh, misfit = {}, [], []
    for name, target in wanted.items():
        if name not in stored:
            continue
        given = stored[name]
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
