"""Unpacks the weights of a network of this folder, so that predict.py can run it.

    python unpack.py                    whatever in this folder is packed
    python unpack.py smallest.packed    one file

Reads a .packed file (entropy-coded integers; format version 2), or a .safetensors file of integer
weights (Q, S and Z of each tensor), and writes the float32 weights as a safetensors file, which the
ONNX file beside it reads. Names and shapes are in the .layout.json file beside it.

It needs numpy, and constriction for .packed files (requirements.txt), and nothing else.
"""

import argparse
import hashlib
import json
import math
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
LAYOUTS = "*.layout.json"
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
         "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip
MAGIC, VERSION = b"\x93PQN", 2
FRAME = struct.Struct("<4sBQ8sI")
# How a tensor is stored, one byte each. A quantized one: 16 and those of the next three that apply.
TIED, RAW, HALF, SINGLE, QUANTIZED = 0, 1, 2, 3, 16
PER_CHANNEL, HALF_SCALES, WIDE = 1, 2, 4
# Frequencies of symbols sum to this.
WHOLE = 2**24


class ProblemError(Exception):
    """What is wrong, and what to do, in a line."""


def require(sound: bool, problem: str) -> None:
    if not sound:
        raise ProblemError(f"{problem}; copy it anew")


class Tensor(NamedTuple):
    """A tensor of the network: what the layout and the file say of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: int

    @property
    def scales(self) -> tuple[int, ...]:
        """The shape of a quantized tensor's scales."""
        return self.shape[:1] if self.kind & PER_CHANNEL else ()


class Group(NamedTuple):
    """Numbers that are coded together. shapes: of the tensors, or of their scales, by name."""

    dtype: type
    shapes: dict[str, tuple[int, ...]]


class Table(NamedTuple):
    """How an array is coded: value = (((first part + least) << shift) + low bits) << zeros."""

    shift: int
    zeros: int
    least: int
    roots: np.ndarray


class Reader:
    """Reads numbers from bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        require(count <= len(self.data) - self.at, "its metadata are too short")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, dtype: str, count: int) -> list[int]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype).tolist()

    def planes(self, count: int) -> np.ndarray:
        """Numbers of three bytes: all lowest bytes, then all middle ones, then all highest."""
        low, middle, high = np.frombuffer(self.take(3 * count), np.uint8).reshape(3, count)
        return low.astype(np.int64) | middle.astype(np.int64) << 8 | high.astype(np.int64) << 16


def opened(data: bytes) -> tuple[bytes, bytes]:
    """The metadata and the coded symbols of a file."""
    require(data[:4] == MAGIC and len(data) >= FRAME.size, "it is no packed network")
    _, version, length, checksum, deflated = FRAME.unpack_from(data)
    digest = hashlib.blake2b(data[:13] + data[21:], digest_size=8).digest()
    require((len(data), digest) == (length, checksum), "it is damaged, or cut short")
    require(version == VERSION, f"it is of format version {version}, not {VERSION}")
    start, end = FRAME.size, FRAME.size + deflated
    return zlib.decompress(data[start:end], -zlib.MAX_WBITS), data[end:]


def groups(tensors: Sequence[Tensor]) -> list[Group]:
    """What is coded, in order: the codes of each quantized tensor; then floats of one kind."""
    codes: list[Group] = []
    floats: dict[tuple, Group] = {}
    for name, shape, _, kind in tensors:
        if kind < HALF:
            continue
        if kind >= QUANTIZED:
            codes.append(Group(np.int16 if kind & WIDE else np.int8, {name: shape}))
            half = bool(kind & HALF_SCALES)
            key: tuple = (half,)
            shape = shape[:1] if kind & PER_CHANNEL else ()
        else:
            half = kind == HALF
            key = (half, name.rpartition(".")[2], len(shape) > 1)
        group = Group(np.float16 if half else np.float32, {})
        floats.setdefault(key, group).shapes[name] = shape
    return [*codes, *floats.values()]


def arrays_of(group: Group) -> list[tuple[int, type]]:
    """Length and type of its coded arrays: float32 in two halves, the upper 16 bits first."""
    length = sum(map(math.prod, group.shapes.values()))
    integer = group.dtype in (np.int8, np.int16)
    dtype = group.dtype if integer else np.uint16
    return [(length, dtype)] * (2 if group.dtype is np.float32 else 1)


def tables(reader: Reader, lengths: Sequence[int]) -> list[Table]:
    """The table of each array; an empty array has none in the file."""
    count = sum(length > 0 for length in lengths)
    shifts, zeros = reader.numbers("<u1", count), reader.numbers("<u1", count)
    leasts, sizes = reader.numbers("<i4", count), reader.numbers("<u2", count)
    ends = np.cumsum([size + 1 for size in sizes], dtype=np.int64)
    roots = np.split(reader.planes(int(ends[-1]) if count else 0), ends[:-1])
    there = map(Table, shifts, zeros, leasts, roots)
    return [next(there) if length else Table(0, 0, 0, np.ones(1, np.int64)) for length in lengths]


def decoded(
    payload: bytes, known: Sequence[Table], wanted: Sequence[tuple[int, type]]
) -> list[np.ndarray]:
    """The arrays of integers that are coded in a file."""
    import constriction

    words = np.frombuffer(payload + bytes(-len(payload) % 4), "<u4").astype(np.uint32)
    coder = constriction.stream.stack.AnsCoder(words)
    arrays = []
    for (shift, zeros, least, roots), (length, dtype) in zip(known, wanted, strict=True):
        values = np.full(length, least, np.int64)
        if len(roots) > 1 and length:
            squares = roots**2
            free = WHOLE - len(roots)
            shares = squares * free // squares.sum()
            shares[squares.argmax()] += free - shares.sum()
            # constriction adds 1 to each, and scales these, which have the right sum, by 1.
            model = constriction.stream.model.Categorical(shares.astype(float), perfect=False)
            values += coder.decode(model, length)
        values <<= shift
        if shift and length:
            values += coder.decode(constriction.stream.model.Uniform(2**shift), length)
        arrays.append((values << zeros).astype(dtype))
    ended = coder.num_words() == 1 and coder.get_compressed()[0] == WHOLE
    require(ended, "its coded symbols do not end where they should")
    return arrays


def joined(group: Group, arrays: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a group, floats as float32."""
    if group.dtype is np.float32:
        numbers = (arrays[0].astype(np.uint32) << 16 | arrays[1]).view(np.float32)
    elif group.dtype is np.float16:
        numbers = arrays[0].view(np.float16).astype(np.float32)
    else:
        (numbers,) = arrays
    start = 0
    for name, shape in group.shapes.items():
        end = start + math.prod(shape)
        yield name, numbers[start:end].reshape(shape)
        start = end


def dequantized(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | int = 0) -> np.ndarray:
    """S · (Q − Z) in float32; S and Z are per tensor, or per index of the first dimension."""
    along = (-1,) + (1,) * (codes.ndim - 1) if np.ndim(scale) else ()
    steps = codes.astype(np.int32) - np.reshape(zero, along if np.ndim(zero) else ())
    return steps.astype(np.float32) * scale.reshape(along)


def from_packed(data: bytes, layout: Mapping[str, Any]) -> dict[str, bytes]:
    """The bytes of each tensor of a .packed file."""
    about, payload = opened(data)
    reader = Reader(about)
    reader.take(*reader.numbers("<u4", 1))  # the description of the architecture
    if reader.take(1) == b"\1":
        reader.planes(layout["integers"])  # what filters took along: the layout has it already
    entries = {name: entry for name, entry in layout["header"].items() if name != "__metadata__"}
    kinds = reader.take(len(entries))
    tensors = [
        Tensor(name, tuple(entry["shape"]), entry["dtype"], kind)
        for (name, entry), kind in zip(entries.items(), kinds, strict=True)
    ]
    tied = [one for one in tensors if one.kind == TIED]
    sources = dict(zip(tied, reader.numbers("<u4", len(tied)), strict=True))
    found = {
        one.name: reader.take(math.prod(one.shape) * BYTES[one.dtype])
        for one in tensors
        if one.kind == RAW
    }
    coded = groups(tensors)
    wanted = [array for group in coded for array in arrays_of(group)]
    known = tables(reader, [length for length, _ in wanted])
    require(reader.at == len(about), "its metadata do not fit its layout")
    arrays = iter(decoded(payload, known, wanted))
    codes: dict[str, np.ndarray] = {}
    floats: dict[str, np.ndarray] = {}
    for group in coded:
        numbers = floats if group.dtype in (np.float16, np.float32) else codes
        numbers |= joined(group, [next(arrays) for _ in arrays_of(group)])
    for name, values in floats.items():
        numbers = dequantized(codes[name], values) if name in codes else values
        found[name] = numbers.astype("<f4").tobytes()
    return found | {one.name: found[tensors[source].name] for one, source in sources.items()}


def from_integers(data: bytes) -> dict[str, bytes]:
    """The bytes of each tensor of a safetensors file, with NAME for NAME.Q, NAME.S and NAME.Z."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found = {
        name: data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        for name, entry in header.items()
        if name != "__metadata__"
    }
    for name in [name.removesuffix(".Q") for name in found if name.endswith(".Q")]:
        parts = [
            np.frombuffer(found.pop(part), f"<{header[part]['dtype'].lower()[0]}{size}").reshape(
                header[part]["shape"]
            )
            for part in (f"{name}.Q", f"{name}.S", f"{name}.Z")
            for size in [BYTES[header[part]["dtype"]]]
        ]
        found[name] = dequantized(*parts).astype("<f4").tobytes()
    return found


def safetensors(tensors: Mapping[str, bytes], header: Mapping[str, Any]) -> bytes:
    """A safetensors file of these tensors at the places that the header gives them."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % 64)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    order = sorted(entries, key=lambda name: entries[name]["data_offsets"])
    fits = entries.keys() == tensors.keys() and all(
        len(tensors[name]) == entries[name]["data_offsets"][1] - entries[name]["data_offsets"][0]
        for name in order
    )
    require(fits, "its tensors are not those of its layout")
    return len(text).to_bytes(8, "little") + text + b"".join(tensors[name] for name in order)


def unpack(layout: Path) -> Path:
    """Writes the weights that a layout describes. Returns their file."""
    about = json.loads(layout.read_text("utf-8"))
    source, target = (layout.with_name(about[key]) for key in ("packed", "weights"))
    data = source.read_bytes()
    try:
        packed = data[:4] == MAGIC or source.suffix == ".packed"
        tensors = from_packed(data, about) if packed else from_integers(data)
        whole = safetensors(tensors, about["header"])
    except (ProblemError, ValueError, LookupError, zlib.error) as error:
        raise ProblemError(f"{source}: {error}") from None
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(whole)
    partial.replace(target)
    return target


def main(argv: Sequence[str] | None = None) -> int:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path, help="a packed file")
    files = parser.parse_args(argv).files
    layouts = [file.with_suffix(".layout.json") for file in files] or sorted(HERE.glob(LAYOUTS))
    try:
        for layout in layouts:
            target = unpack(layout)
            print(f"{target}: {target.stat().st_size:,} bytes")
        if not layouts:
            print(f"{HERE}: nothing in it is packed")
    except ModuleNotFoundError as error:
        print(f"error: {error}: pip install -r requirements.txt", file=sys.stderr)
        return 2
    except (ProblemError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
