"""Reads the tensors of any checkpoint, by its content, without running code.

A file of torch.save may hold a state dict, a dict around it, or a whole network or trainer. Objects
of classes that torch does not read by itself become `Shell`s: nothing of them is imported or
called, only their attributes are kept.
"""

import json
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from stages.lib.core import paths
from stages.lib.core.errors import UserError

# Deeper and longer files are no checkpoints.
MOST_DEPTH = 30
MOST_TENSORS = 1_000_000
MOST_CLASSES = 1000
_NETWORK = ("_parameters", "_buffers", "_modules")
_UNKNOWN_CLASS = re.compile(r"GLOBAL (\S+) was not an allowed global")
# The numbers of torch.export's schema.
_EXPORT_TYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
    7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip


class Stored(NamedTuple):
    """The tensors of a file.

    tensors: by name, with all keys and attributes around it: `state_dict.conv1.weight`.
    groups: for each name, where the dict or the network begins that it is in: `state_dict`.
    """

    tensors: dict[str, torch.Tensor]
    groups: dict[str, str]


class Shell:
    """Stands for an object whose class is not loaded. Keeps its attributes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __new__(cls, *args: Any, **kwargs: Any) -> "Shell":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({key: value for key, value in state.items() if type(key) is str})


def _load_pickle(path: Path) -> Any:
    classes: set[str] = set()
    while True:
        try:
            shells = torch.serialization.safe_globals([(Shell, name) for name in sorted(classes)])
            # A file, as torch.load judges a path by its suffix.
            with shells, path.open("rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of another pickle protocol
                return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            unknown = _UNKNOWN_CLASS.search(str(error))
            # torch's message leaves `builtins` out.
            names = {unknown[1], f"builtins.{unknown[1]}"} if unknown else set()
            if not names - classes or len(classes) > MOST_CLASSES:
                raise
            classes |= names


def _load_export(archive: zipfile.ZipFile, config: str) -> dict[str, torch.Tensor]:
    """The weights of a file of torch.export.save (.pt2)."""
    folder = config.rpartition("/")[0]
    found = {}
    for name, entry in json.loads(archive.read(config))["config"].items():
        if entry["use_pickle"]:
            continue
        about = entry["tensor_meta"]
        sizes, strides = ([one["as_int"] for one in about[key]] for key in ("sizes", "strides"))
        storage = torch.frombuffer(
            bytearray(archive.read(f"{folder}/{entry['path_name']}")),
            dtype=_EXPORT_TYPES[about["dtype"]],
        )
        found[name] = storage.as_strided(sizes, strides, about["storage_offset"]["as_int"]).clone()
    return found


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise UserError(
                f"model.weights: {path} is TorchScript, which holds code and is not run; save the"
                f' weights alone: the state_dict() of torch.jit.load("{path}")'
            )
        config = next((name for name in names if name.endswith(paths.EXPORTED_WEIGHTS)), None)
        if config:
            return _load_export(archive, config)
    return _load_pickle(path)


def _load(path: Path) -> Any:
    """What the file holds, whatever it is called."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[:2] == b"PK":
        return _load_zip(path)
    if start[:4] == b"\x89HDF":
        raise UserError(
            f"model.weights: {path} is HDF5, as Keras writes it; give weights of a PyTorch network"
        )
    size = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and size < path.stat().st_size:
        return load_file(path)
    if tarfile.is_tarfile(path):
        raise UserError(
            f"model.weights: {path} is a tar archive; unpack it and give the file in it"
        )
    return _load_pickle(path)


def _is_network(value: Any) -> bool:
    return isinstance(value, Shell) and all(isinstance(vars(value).get(k), dict) for k in _NETWORK)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """The named parts of a value: of a network its parameters, buffers and modules."""
    if _is_network(value):
        for part in _NETWORK:
            yield from vars(value)[part].items()
    elif isinstance(value, Shell):
        yield from vars(value).items()
    elif isinstance(value, Mapping):
        yield from value.items()


def _flatten(stored: Any) -> Stored:
    found, groups = {}, {}

    def add(prefix: str, value: Any, above: tuple[int, ...], group: str) -> None:
        if id(value) in above or len(above) > MOST_DEPTH:
            return
        for key, child in _children(value):
            if not isinstance(key, str):
                continue
            name = f"{prefix}{key}"
            if isinstance(child, torch.Tensor):
                found[name], groups[name] = child.detach(), group
                if len(found) > MOST_TENSORS:
                    raise ValueError("too many tensors")
            else:
                inside = _is_network(value) and _is_network(child)
                add(f"{name}.", child, (*above, id(value)), group if inside else name)

    add("", stored, (), "")
    return Stored(found, groups)


def _weight_norm(scale: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """w = g · v / |v| (T. Salimans, D. P. Kingma, 2016), with the norm over where g has size 1."""
    if scale.dim() != direction.dim():
        return scale * direction / direction.norm()
    shared = tuple(axis for axis, size in enumerate(scale.shape) if size == 1)
    return scale * direction / torch.linalg.vector_norm(direction, dim=shared, keepdim=True)


def _computed(stored: Stored) -> Stored:
    """With the weights that a network computed from others, by torch.nn.utils' prune and
    weight_norm, in the place of those.
    """
    found, groups = stored
    pairs = {
        "_orig": ("_orig", "_mask", lambda whole, mask: whole * mask),
        "_g": ("_g", "_v", _weight_norm),
        ".original0": (".original0", ".original1", _weight_norm),
    }
    for name in list(found):
        for ending, (first, second, combine) in pairs.items():
            base = name.removesuffix(ending)
            if base == name or f"{base}{second}" not in found:
                continue
            left, right = found.pop(f"{base}{first}"), found.pop(f"{base}{second}")
            whole = base.replace("parametrizations.", "")
            found[whole], groups[whole] = combine(left, right), groups[name]
    return stored


def read(path: Path) -> Stored:
    """Every tensor in a file, on the CPU.

    UserError if the file is missing, damaged or of another kind, holds no tensors, or is a pickle
    that cannot be read without running code.
    """
    if not path.is_file():
        raise UserError(f"model.weights: {path}: not found; give a file's path, or none")
    try:
        found = _computed(_flatten(_load(path)))
    except UserError:
        raise
    except UnpicklingError:
        raise UserError(
            f"model.weights: {path} cannot be read without running code from it, which is never"
            " done; save model.state_dict() alone"
        ) from None
    except Exception:  # noqa: BLE001 - a damaged file may raise anything
        raise UserError(
            f"model.weights: {path}: not a whole file of torch.save, torch.export.save or"
            " safetensors (cut short?); get it anew"
        ) from None
    if not found.tensors:
        raise UserError(
            f"model.weights: {path} holds no state dict; save it with"
            " torch.save of model.state_dict() or safetensors' save_file"
        )
    return found
