"""Model files: safetensors with the architecture as JSON in the header. No pickle.

The header has only one metadata key: safetensors writes several in no fixed order, and the same
model must give the same bytes.
"""

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import nn

from stages.lib.core import custom_model
from stages.lib.core.errors import UserError
from stages.lib.models import registry, skeletons

KEY = "architecture"
REMEDY = "delete it and run `dvc repro`"
# Files with fewer values than this are compared with the unpruned network before it is built.
SMALL = 2**20
# A network with filters removed has at least this share of the unpruned one's weights, one in …
MOST_REMOVED = 10_000


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The network's state dict as it is saved: on the CPU, contiguous, without shared memory."""
    storages: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses shared memory: tied weights are stored under each of their names.
        tensors[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return tensors


def serialized_bytes(model: nn.Module) -> int:
    """Size in bytes of the file that `save_model` would write."""
    shapes = tuple(
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in model.state_dict().items()
    )
    return _serialized_bytes(shapes, json.dumps(registry.portable(registry.architecture_of(model))))


@lru_cache
def _serialized_bytes(shapes: tuple, architecture: str) -> int:
    # A sweep asks for the same size many times. The file is its header's length, the header in a
    # multiple of 8 bytes, and the values, which are not made: for ResNet-152 that takes a gigabyte.
    empty = {name: torch.empty(0, dtype=dtype) for name, dtype, _ in shapes}
    header, end = json.loads(save(empty, {KEY: architecture})[8:]), 0
    known = {name: (dtype, shape) for name, dtype, shape in shapes}
    for name in [name for name in header if name in known]:  # in the order of the file
        dtype, shape = known[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] |= {"shape": shape, "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + 8 * math.ceil(length / 8) + end


def save_model(model: nn.Module, path: Path) -> int:
    """Writes weights, buffers and architecture. Returns the file's size in bytes."""
    architecture = registry.portable(registry.architecture_of(model))
    return save_tensors(path, tensors_of(model), {KEY: architecture})


def save_tensors(
    path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any] | None = None
) -> int:
    """Writes named tensors and at most one header entry (JSON). Returns the file's size in
    bytes.
    """
    if header is not None and len(header) > 1:
        raise ValueError("one header entry at most: several are written in no fixed order")
    metadata = {key: json.dumps(value) for key, value in (header or {}).items()}
    try:
        save_file(tensors, path, metadata or None)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None
    return path.stat().st_size


def load_tensors(path: Path, key: str | None = None) -> tuple[dict[str, torch.Tensor], Any]:
    """All tensors of a safetensors file, and the JSON value of `key` in its header (or None).

    UserError with file and remedy if it is missing, cut short or another kind of file.
    """
    if not path.exists():
        raise UserError(f"{path}: not found; run `dvc repro`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        raise UserError(f"{path}: not a whole safetensors file (cut short?); {REMEDY}") from None
    try:
        return tensors, None if key is None else json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        raise UserError(
            f"{path}: not written by this pipeline ({key} is missing); {REMEDY}"
        ) from None


def load_model(
    path: Path, expected: registry.Architecture | None = None, network: str | None = None
) -> nn.Module:
    """Rebuilds the network of a file on the CPU, in evaluation mode.

    expected: the architecture of the params; a file of another architecture is refused.
    network: the custom network (`path/to/file.py:factory`) that the file may name, because building
        it runs that code; None: only that of `expected`, or registered networks.

    UserError with file and remedy if the file is missing, damaged or of another kind or network.
    """
    tensors, description = load_tensors(path, KEY)
    wanted = expected and registry.portable(expected)
    if wanted and description != wanted:
        known = description if isinstance(description, dict) else {}
        names = sorted(key for key in wanted.keys() | known if wanted.get(key) != known.get(key))
        raise UserError(
            f"{path}: a network of another architecture than params.yaml's (it differs in"
            f" {', '.join(names)}); {REMEDY}"
        )
    return restore(path, tensors, description, expected["name"] if expected else network)


def restore(
    path: Path, tensors: dict[str, torch.Tensor], description: Any, network: str | None
) -> nn.Module:
    """The network of an architecture with these weights. network: as for `load_model`."""
    try:
        name = custom_model.allowed_name(description.get("name"), network)
        description = {**description, "name": name}
        held = sum(tensor.numel() for tensor in tensors.values())
        # A few bytes may name a network of gigabytes: its sizes are found before it is built.
        few = held < SMALL and not custom_model.is_own(description["name"])
        if few and skeletons.of(description).elements > max(SMALL, MOST_REMOVED * held):
            raise ValueError("fewer weights than filters can be removed")
        return registry.rebuild(description, tensors).eval()
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(f"{path}: its tensors do not fit its architecture; {REMEDY}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
