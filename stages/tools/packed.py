"""Inspects, verifies and unpacks packed networks.

Exit code 0: done, or the file is sound; 2: the file is damaged, or something else is wrong.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import tabulate

from stages.lib.analysis import tables
from stages.lib.compression import container, entropy, packed
from stages.lib.compression import packed_layout as layout
from stages.lib.compression.packed import Contents
from stages.lib.compression.packed_layout import Entry
from stages.lib.core import errors, outputs, paths
from stages.lib.models import checkpoints


def totals(contents: Contents) -> str:
    """One line with a file's sizes."""
    file, payload = contents.file_bytes, contents.payload_bytes
    plain = sum(
        math.prod(entry.shape) * entry.dtype.itemsize for entry in contents.metadata.entries
    )
    return (
        f"{file:,} bytes, of which {file - payload:,} header and {payload:,} coded;"
        f" {plain / file:.1f} times smaller than {plain:,} of plain tensors"
    )


def stored(entry: Entry, contents: Contents) -> tuple[str, float]:
    """How a tensor is stored, and how many bytes that takes if its integers take their Shannon
    entropy and all else is uncompressed.
    """
    if entry.source:
        return f"as {entry.source}", 0.0
    if entry.is_quantized:
        codes, scales, _ = contents.quantized[entry.name]
        # The least width, 2 or more, at which symmetric quantization has all these codes.
        bits = max(int(codes.int().abs().max()).bit_length() + 1, 2) if codes.numel() else 2
        count, width = scales.numel(), 2 if entry.kind & layout.HALF_SCALES else 4
        bound = entropy.bound_bits(codes.numpy()) / 8 + width * count
        return f"{bits} bit, {count} scale{'s' * (count != 1)}", bound
    half = entry.kind == layout.HALF
    width = 2 if half else entry.dtype.itemsize
    name = "float16" if half else str(entry.dtype).removeprefix("torch.")
    return name, width * math.prod(entry.shape)


def rows(contents: Contents) -> list[tuple[str, str, str, float, float]]:
    """Name, shape, how it is stored, share of zeros and bound in bytes of each tensor."""
    codes = {name: parts.Q for name, parts in contents.quantized.items()}
    values = contents.tensors | codes
    lines = []
    for entry in contents.metadata.entries:
        tensor = values[entry.source or entry.name]
        zeros = 1 - int(tensor.count_nonzero()) / max(tensor.numel(), 1)
        shape = "×".join(map(str, entry.shape)) or "1"
        how, bound = stored(entry, contents)
        lines.append((entry.name, shape, how, zeros, bound))
    return lines


def decoded(arguments: argparse.Namespace) -> Contents:
    """The file as far as it is read without its network."""
    data = packed.read(arguments.file)
    return packed.decode(data, str(arguments.file), arguments.max_elements, arguments.network)


def info(arguments: argparse.Namespace) -> None:
    """Tell the architecture, and each tensor's bits, zeros and bound in bytes."""
    contents = decoded(arguments)
    architecture = json.dumps(contents.metadata.architecture, ensure_ascii=False)
    print(f"packed network, format version {container.VERSION}: {architecture}\n")
    lines = rows(contents)
    headers = ("tensor", "shape", "stored as", "zeros", "bound")
    formats = ("", "", "", ".1%", ",.1f")
    print(tabulate.tabulate(lines, headers, tablefmt="plain", floatfmt=formats))
    bound = sum(line[-1] for line in lines)
    print(f"\n{totals(contents)}")
    print(
        f"bound (Shannon entropy of the integers, all else raw): {bound:,.1f} bytes; the file:"
        f" {tables.signed(100 * (contents.file_bytes / bound - 1), 2)} %"
    )


def verify(arguments: argparse.Namespace) -> None:
    """Compare the checksum, decode everything and rebuild the network."""
    contents = decoded(arguments)
    packed.rebuilt(contents)
    print(f"{arguments.file}: sound: {totals(contents)}")


def unpack(arguments: argparse.Namespace) -> None:
    """Write the network as a safetensors file of plain float32 tensors."""
    model = packed.rebuilt(decoded(arguments))
    with outputs.whole_file(arguments.output) as partial:
        size = checkpoints.save_model(model, partial)
    print(f"{arguments.output}: {size:,} bytes")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.packed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (info, verify, unpack):
        about = {"help": function.__doc__, "description": function.__doc__}
        command = commands.add_parser(function.__name__, **about)
        command.set_defaults(function=function)
        command.add_argument("file", metavar="FILE", type=Path)
        allowed = "the custom network that the file may name: building it runs that code"
        command.add_argument("--network", metavar="FILE.py:FACTORY", help=allowed)
        most = "how many numbers the network may have (default: what the file's size bears)"
        command.add_argument("--max-elements", metavar="N", type=int, help=most)
    about = {"required": True, "help": f"a {paths.SAFETENSORS} file"}
    command.add_argument("-o", "--output", metavar="FILE", type=Path, **about)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parsed(argv)
    with errors.told():
        arguments.function(arguments)


if __name__ == "__main__":
    main()
