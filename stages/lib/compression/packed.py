"""Packed networks: a whole network with integer weights, entropy-coded in one small file, from
which a new process rebuilds it. docs/packed-format.md describes the format byte by byte.

Names, shapes and types follow from the network's code and are not in the file. There is no pickle,
and memory is never allocated only because a file asks for it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.compression import container, entropy_coding, packed_metadata
from stages.lib.compression import packed_layout as layout
from stages.lib.compression.container import UnsoundError
from stages.lib.compression.packed_layout import Entry
from stages.lib.compression.packed_metadata import Metadata
from stages.lib.core import outputs
from stages.lib.core.errors import UserError
from stages.lib.models import checkpoints, registry, skeletons
from stages.lib.quantization.linear import Quantized, dequantize

# A network of up to this many numbers (256 MiB in float32) is rebuilt for any size of its file.
FREE_ELEMENTS = 2**26
# Beyond that, this many numbers for each byte of the file. 92 % sparsity at 4 bits needs 13.
ELEMENTS_PER_BYTE = 128


def _is_half(tensor: torch.Tensor) -> bool:
    """Whether float16 holds every value of a float32 tensor exactly, signed zeros too."""
    return torch.equal(tensor.half().float().view(torch.int32), tensor.view(torch.int32))


def _kind(tensor: torch.Tensor, parts: Quantized | None) -> int:
    if parts is not None:
        return (
            layout.QUANTIZED
            + layout.PER_CHANNEL * (parts.S.dim() == 1)
            + layout.HALF_SCALES * _is_half(parts.S)
            + layout.WIDE * (parts.Q.dtype == torch.int16)
        )
    if tensor.dtype != torch.float32:
        return layout.RAW
    return layout.HALF if _is_half(tensor) else layout.SINGLE


def _check(state: Mapping[str, torch.Tensor], quantized: Mapping[str, Quantized]) -> None:
    for name, (codes, scales, zeros) in quantized.items():
        tensor = state.get(name)
        if (
            tensor is None
            or (tensor.shape, tensor.dtype) != (codes.shape, torch.float32)
            or codes.dtype not in (torch.int8, torch.int16)
            or scales.dtype != torch.float32
            or scales.shape not in (torch.Size([]), codes.shape[:1])
            or not scales.isfinite().all()
            or zeros.any()
        ):
            raise ValueError(f"{name}: not a symmetric quantization of a float32 tensor of it")


def _ties(model: nn.Module, quantized: Mapping[str, Quantized]) -> dict[str, str]:
    """The tied tensors: for each second name of a tensor, the tensor's first name."""
    same: dict[tuple, list[str]] = defaultdict(list)
    for name, tensor in model.state_dict().items():
        if tensor.numel():
            same[tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()].append(name)
    ties = {}
    for names in same.values():
        # If one of them is quantized, all are.
        first = next((name for name in names if name in quantized), names[0])
        ties |= {name: first for name in names if name != first and name not in quantized}
    return ties


def pack(model: nn.Module, quantized: Mapping[str, Quantized]) -> bytes:
    """The bytes of a packed file: the quantized weights in place of the model's weights of the same
    names, and the rest of the model as it is. The same input gives the same bytes.

    quantized: symmetric (Z = 0), of float32 parameters.

    Raises ValueError if model and quantized do not fit, UserError if the code of a custom network
    has changed.
    """
    quantized = {
        name: Quantized(*(part.cpu() for part in parts)) for name, parts in quantized.items()
    }
    state, ties = checkpoints.tensors_of(model), _ties(model, quantized)
    architecture = registry.architecture_of(model)
    _check(state, quantized)
    skeleton = skeletons.of(architecture)
    if skeleton.dtypes != {name: tensor.dtype for name, tensor in state.items()}:
        raise ValueError("the network is not of its architecture: other tensors, or other types")
    entries = []
    for name, tensor in state.items():
        kind = layout.TIED if name in ties else _kind(tensor, quantized.get(name))
        entries.append(Entry(name, tuple(tensor.shape), tensor.dtype, kind, ties.get(name)))
    codes = {name: parts.Q for name, parts in quantized.items()}
    floats = state | {name: parts.S for name, parts in quantized.items()}
    arrays = [
        array
        for group in layout.groups(entries)
        for array in group.split(codes if group.is_integer else floats)
    ]
    tables = [entropy_coding.table_for(array) for array in arrays]
    raw = {entry.name: state[entry.name] for entry in entries if entry.kind == layout.RAW}
    metadata = packed_metadata.to_bytes(Metadata(architecture, entries, raw, tables), skeleton)
    return container.wrap(metadata, entropy_coding.encode(arrays, tables))


def save(path: Path, model: nn.Module, quantized: Mapping[str, Quantized]) -> int:
    """Writes a packed file, completely or not at all. Returns its size in bytes."""
    data = pack(model, quantized)
    with outputs.whole_file(path) as partial:
        partial.write_bytes(data)
    return len(data)


class Contents(NamedTuple):
    """The contents of a file, before the network is rebuilt.

    where: names the file in errors.
    file_bytes, payload_bytes: of the file, and of its coded arrays.
    quantized: Q, S and Z of each quantized tensor.
    tensors: all other tensors except tied ones.
    """

    where: str
    file_bytes: int
    payload_bytes: int
    metadata: Metadata
    quantized: dict[str, Quantized]
    tensors: dict[str, torch.Tensor]


@contextmanager
def _errors_naming(where: str) -> Iterator[None]:
    """Turns an UnsoundError into a UserError that names the file."""
    try:
        yield
    except (UnsoundError, UserError) as error:
        raise UserError(f"{where}: {error}") from None


def decode(
    data: bytes,
    where: str = "packed network",
    max_elements: int | None = None,
    network: str | None = None,
) -> Contents:
    """The contents of a packed file's bytes.

    where: names the file in errors.
    max_elements: the most numbers that the unpruned network may have; None: 2^26, or 128 for each
        byte of the file if that is more.
    network: the custom network (`path/to/file.py:factory`) that the file may name, because building
        it runs that code; None: only registered networks.

    Raises UserError if the file is damaged, another kind of file, of an unknown version, asks for
    more numbers or names another custom network; or if that network's Python file is missing or has
    changed.
    """
    most = max_elements or max(FREE_ELEMENTS, ELEMENTS_PER_BYTE * len(data))
    with _errors_naming(where):
        about, payload = container.unwrap(data)
        metadata = packed_metadata.from_bytes(about, most, network)
        groups = layout.groups(metadata.entries)
        wanted = [array for group in groups for array in group.coded]
        arrays = iter(entropy_coding.decode(payload, metadata.tables, wanted))
        codes: dict[str, torch.Tensor] = {}
        floats: dict[str, torch.Tensor] = {}
        for group in groups:
            tensors = codes if group.is_integer else floats
            tensors |= group.join([next(arrays) for _ in group.coded])
        scales = {name: floats.pop(name) for name in codes}
        finite = all(scale.isfinite().all() for scale in scales.values())
        container.require(finite, "it holds scales that are not finite")
    quantized = {
        name: Quantized(codes[name], scale, torch.zeros(scale.shape, dtype=torch.int32))
        for name, scale in scales.items()
    }
    return Contents(where, len(data), len(payload), metadata, quantized, metadata.raw | floats)


def rebuilt(contents: Contents) -> nn.Module:
    """The network in evaluation mode with dequantized weights. UserError if the file is damaged."""
    weights = {name: dequantize(parts) for name, parts in contents.quantized.items()}
    tensors, entries = contents.tensors | weights, contents.metadata.entries
    state = {entry.name: tensors[entry.source or entry.name] for entry in entries}
    with _errors_naming(contents.where):
        try:
            return registry.rebuild(contents.metadata.architecture, state).eval()
        except skeletons.MISFITS:
            raise UnsoundError("its tensors do not fit its architecture") from None


def unpack(data: bytes, *options, **named) -> tuple[nn.Module, dict[str, Quantized]]:
    """The network of a packed file's bytes, and Q, S and Z of its quantized weights by name, bit
    for bit as given to `pack`. Options and errors are those of `decode`.
    """
    contents = decode(data, *options, **named)
    return rebuilt(contents), contents.quantized


def read(path: Path) -> bytes:
    """The bytes of a packed file. UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a packed network") from None


def load(path: Path, network: str | None = None) -> tuple[nn.Module, dict[str, Quantized]]:
    """As `unpack`, for a file."""
    return unpack(read(path), str(path), network=network)
