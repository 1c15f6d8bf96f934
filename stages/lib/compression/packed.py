"""Packed networks: integer weights and all else of a network, entropy-coded, in one small file from
which a fresh process rebuilds it. docs/packed-format.md has the format, byte by byte.

What the network's code tells (names, shapes, types) is not in the file. No pickle; and nothing is
allocated on a file's word alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from stages.lib.compression import container, entropy_coding, packed_metadata, skeletons
from stages.lib.compression import packed_layout as layouts
from stages.lib.compression.container import UnsoundError
from stages.lib.compression.packed_layout import Group, Layout
from stages.lib.compression.packed_metadata import Metadata
from stages.lib.core import outputs
from stages.lib.core.errors import UserError
from stages.lib.models import checkpoints, registry
from stages.lib.quantization.linear import Quantized, dequantize

# A network of up to so many numbers is rebuilt whatever the size of its file: 256 MiB in float32.
FREE_ELEMENTS = 2**26
# Beyond, so many for each byte of the file. 92 % sparsity at 4 bits needs 13.
ELEMENTS_PER_BYTE = 128


def _is_half(tensor: torch.Tensor) -> bool:
    """Whether float16 holds every value of a float32 tensor exactly, to the sign of a zero."""
    return torch.equal(tensor.half().float().view(torch.int32), tensor.view(torch.int32))


def _kind(tensor: torch.Tensor, parts: Quantized | None) -> int:
    if parts is not None:
        return (
            layouts.QUANTIZED
            + layouts.PER_CHANNEL * (parts.S.dim() == 1)
            + layouts.HALF_SCALES * _is_half(parts.S)
            + layouts.WIDE * (parts.Q.dtype == torch.int16)
        )
    if tensor.dtype != torch.float32:
        return layouts.RAW
    return layouts.HALF if _is_half(tensor) else layouts.SINGLE


def _check(state: Mapping[str, torch.Tensor], quantized: Mapping[str, Quantized]) -> None:
    for name, parts in quantized.items():
        tensor = state.get(name)
        if tensor is None or parts.Q.shape != tensor.shape or tensor.dtype != torch.float32:
            raise ValueError(f"{name}: not quantized from a float32 tensor of this network")
        if parts.Q.dtype not in (torch.int8, torch.int16) or parts.S.dtype != torch.float32:
            raise ValueError(f"{name}: int8 or int16 with float32 scales are wanted")
        if parts.Z.any():
            raise ValueError(f"{name}: only symmetric quantization is packed (zero points of 0)")
        if parts.S.shape not in (torch.Size([]), parts.Q.shape[:1]):
            raise ValueError(f"{name}: a scale for the tensor or one per channel is wanted")
        if not parts.S.isfinite().all():
            raise ValueError(f"{name}: its scales are not finite")


def _ties(model: nn.Module, quantized: Mapping[str, Quantized]) -> dict[int, int]:
    """The tensors, by index, that are another one of the network under a second name."""
    state = model.state_dict()
    names = list(state)
    same: dict[tuple, list[int]] = {}
    for index, tensor in enumerate(state.values()):
        if tensor.numel():
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            same.setdefault(place, []).append(index)
    ties = {}
    for indices in same.values():
        # Where one of them is quantized, all are.
        first = next((index for index in indices if names[index] in quantized), indices[0])
        ties |= {one: first for one in indices if one != first and names[one] not in quantized}
    return ties


def _layout(model: nn.Module, quantized: Mapping[str, Quantized]) -> Layout:
    state = checkpoints.tensors_of(model)
    ties = _ties(model, quantized)
    kinds = [
        layouts.TIED if index in ties else _kind(tensor, quantized.get(name))
        for index, (name, tensor) in enumerate(state.items())
    ]
    return Layout(
        registry.architecture_of(model),
        list(state),
        [tuple(tensor.shape) for tensor in state.values()],
        [tensor.dtype for tensor in state.values()],
        kinds,
        ties,
    )


def _halves(floats: np.ndarray, half: bool) -> list[np.ndarray]:
    if half:
        return [floats.astype(np.float16).view(np.uint16)]
    bits = floats.view(np.uint32)
    return [(bits >> 16).astype(np.uint16), bits.astype(np.uint16)]


def _arrays(
    layout: Layout, state: Mapping[str, torch.Tensor], quantized: Mapping[str, Quantized]
) -> Iterator[np.ndarray]:
    """The arrays that are coded, in the order of `layouts.coded`."""
    for index in layout.quantized:
        yield quantized[layout.names[index]].Q.contiguous().numpy().reshape(-1)
    for group in layouts.groups(layout):
        names = [layout.names[index] for index in group.shapes]
        floats = [quantized[name].S if name in quantized else state[name] for name in names]
        joined = np.concatenate([one.contiguous().numpy().reshape(-1) for one in floats])
        yield from _halves(joined, group.half)


def pack(model: nn.Module, quantized: Mapping[str, Quantized]) -> bytes:
    """The bytes of a packed file: these integers and scales in place of the model's weights of
    those names, and the rest of the model as it is.

    quantized: symmetric (Z = 0), of float32 parameters. Values that float16 holds exactly take two
    bytes at most. The same input gives the same bytes. Raises ValueError where model and quantized
    do not fit, UserError where the code of a network of the user's own has changed.
    """
    quantized = {
        name: Quantized(*(one.cpu() for one in parts)) for name, parts in quantized.items()
    }
    state = checkpoints.tensors_of(model)
    _check(state, quantized)
    layout = _layout(model, quantized)
    dense = skeletons.of(layout.architecture)
    if dense.dtypes != dict(zip(layout.names, layout.dtypes, strict=True)):
        raise ValueError("the network is not of its architecture: other tensors, or other types")
    strange = next((one for one in layout.dtypes if one not in layouts.RAW_TYPES), None)
    if strange is not None:
        raise ValueError(f"a tensor of {strange} is not packed")
    arrays = list(_arrays(layout, state, quantized))
    tables = [entropy_coding.table_for(array) for array in arrays]
    raw = {index: state[layout.names[index]] for index in layout.of_kind(layouts.RAW)}
    metadata = packed_metadata.to_bytes(Metadata(layout, raw, tables), dense)
    return container.wrap(metadata, entropy_coding.encode(arrays, tables))


def save(path: Path, model: nn.Module, quantized: Mapping[str, Quantized]) -> int:
    """Writes a packed file, whole or not at all; returns its size in bytes."""
    data = pack(model, quantized)
    with outputs.whole_file(path) as partial:
        partial.write_bytes(data)
    return len(data)


class Contents(NamedTuple):
    """What is in a file: its metadata, the coded arrays in order, and what is made of them by name:
    Q, S and Z of each quantized tensor, and all others but the tied ones.
    """

    metadata: Metadata
    arrays: list[np.ndarray]
    quantized: dict[str, Quantized]
    tensors: dict[str, torch.Tensor]


@contextmanager
def errors_naming(where: str) -> Iterator[None]:
    """What goes wrong with a file becomes a UserError that names it."""
    try:
        yield
    except (UnsoundError, UserError) as error:
        raise UserError(f"{where}: {error}") from None


def _floats(halves: Sequence[np.ndarray], group: Group) -> dict[int, torch.Tensor]:
    """A group's tensors, by index, from the arrays that it was coded in."""
    if group.half:
        joined = halves[0].view(np.float16).astype(np.float32)
    else:
        joined = (halves[0].astype(np.uint32) << 16 | halves[1]).view(np.float32)
    parts = torch.from_numpy(joined).split(group.lengths)
    # Copies: a slice would keep the whole group alive, and be written with it.
    return {
        index: part.clone().reshape(shape)
        for (index, shape), part in zip(group.shapes.items(), parts, strict=True)
    }


def decoded(data: bytes, max_elements: int | None = None, network: str | None = None) -> Contents:
    """What is in a file's bytes, before the network is rebuilt. Errors as those of `unpack`, but
    for the file's name; UnsoundError instead of UserError where the file is to blame.
    """
    about, payload = container.unwrap(data)
    most = max_elements or max(FREE_ELEMENTS, ELEMENTS_PER_BYTE * len(data))
    metadata = packed_metadata.from_bytes(about, most, network)
    layout = metadata.layout
    wanted = layouts.coded(layout)
    try:
        arrays = entropy_coding.decode(
            payload,
            metadata.tables,
            [array.length for array in wanted],
            [array.dtype for array in wanted],
        )
    except ValueError as error:
        raise UnsoundError(str(error)) from None
    left = iter(arrays)
    integers = {index: torch.from_numpy(next(left)) for index in layout.quantized}
    floats: dict[int, torch.Tensor] = {}
    for group in layouts.groups(layout):
        floats |= _floats([next(left) for _ in range(group.count)], group)
    quantized = {}
    for index, flat in integers.items():
        scale = floats.pop(index)
        if not scale.isfinite().all():
            raise UnsoundError("it holds scales that are not finite")
        zero = torch.zeros(scale.shape, dtype=torch.int32)
        codes = flat.reshape(layout.shapes[index])
        quantized[layout.names[index]] = Quantized(codes, scale, zero)
    tensors = {layout.names[index]: tensor for index, tensor in (metadata.raw | floats).items()}
    return Contents(metadata, arrays, quantized, tensors)


def unpack(
    data: bytes,
    where: str = "packed network",
    max_elements: int | None = None,
    network: str | None = None,
) -> tuple[nn.Module, dict[str, Quantized]]:
    """The network of a packed file's bytes, in evaluation mode with dequantized weights, and its
    integers, scales and zero points by name: bit for bit what `pack` was given.

    where: names the file in errors. max_elements: how many numbers the unpruned network may have at
    most; None: 2^26, or 128 for each byte of the file. network: the custom network
    (`path/to/file.py:factory`) that the file may name, as building it runs that code. Raises
    UserError where the file is torn, damaged, foreign, of another version, asks for more numbers or
    names another custom network; or where the custom network's file is missing or has changed.
    """
    with errors_naming(where):
        contents = decoded(data, max_elements, network)
        layout = contents.metadata.layout
        found = contents.tensors | {
            name: dequantize(parts) for name, parts in contents.quantized.items()
        }
        found |= {
            layout.names[index]: found[layout.names[other]] for index, other in layout.ties.items()
        }
        try:
            model = registry.rebuild(
                layout.architecture, {name: found[name] for name in layout.names}
            )
        except skeletons.MISFITS:
            raise UnsoundError("its tensors do not fit its architecture") from None
        return model.eval(), contents.quantized


def read(path: Path) -> bytes:
    """The bytes of a packed file. UserError where it is missing or foreign: of such a file, however
    large, no more than the first bytes are read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(container.FRAME.size)
            if data.startswith(container.MAGIC):
                data += file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: not found; give the path of a packed network") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return data


def load(
    path: Path, max_elements: int | None = None, network: str | None = None
) -> tuple[nn.Module, dict[str, Quantized]]:
    """As `unpack`, from a file."""
    return unpack(read(path), str(path), max_elements, network)
