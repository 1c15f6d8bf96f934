"""Looks into packed networks, unpacks and verifies them, and packs a network's file.

Exit code 0: done, or sound; 2: the file is not sound, or something else is wrong.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from stages.lib.compression import packed, packed_summary
from stages.lib.compression.packed_summary import Summary
from stages.lib.core import errors, outputs, paths
from stages.lib.models import checkpoints
from stages.lib.quantization import linear


def totals(summary: Summary) -> str:
    """A file's sizes in a line."""
    return (
        f"{summary.file_bytes:,} bytes, of which {summary.header_bytes:,} header and"
        f" {summary.payload_bytes:,} coded; {summary.dense_bytes / summary.file_bytes:.1f} times"
        f" smaller than {summary.dense_bytes:,} of plain tensors"
    )


def told(summary: Summary) -> str:
    """A file's contents, a line for each tensor."""
    rows = [("tensor", "shape", "stored as", "zeros", "bytes", "bound")]
    for one in summary.tensors:
        shape = "×".join(map(str, one.shape)) or "1"
        sizes = (f"{one.coded_bytes:,.1f}", f"{one.bound_bytes:,.1f}")
        rows.append((one.name, shape, one.stored, f"{one.sparsity:.1%}", *sizes))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if index < 3 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    architecture = json.dumps(summary.architecture, ensure_ascii=False)
    return "\n".join(
        (
            f"packed network, format version {summary.version}: {architecture}",
            "",
            *table,
            "",
            totals(summary),
            "bound (Shannon entropy of the integers, all else raw):"
            f" {summary.bound_bytes:,.1f} bytes; the file: {summary.overhead:+.2%}",
        )
    )


def info(arguments: argparse.Namespace) -> None:
    summary = packed_summary.inspect(
        packed.read(arguments.file), str(arguments.file), arguments.max_elements
    )
    print(told(summary))


def verify(arguments: argparse.Namespace) -> None:
    data = packed.read(arguments.file)
    packed.unpack(data, str(arguments.file), arguments.max_elements)
    summary = packed_summary.inspect(data, str(arguments.file), arguments.max_elements)
    print(f"{arguments.file}: sound: {totals(summary)}")


def unpack(arguments: argparse.Namespace) -> None:
    model, _ = packed.load(arguments.file, arguments.max_elements)
    with outputs.whole_file(arguments.output) as partial:
        size = checkpoints.save_model(model, partial)
    print(f"{arguments.output}: {size:,} bytes")


def pack(arguments: argparse.Namespace) -> None:
    model = checkpoints.load_model(arguments.file)
    quantized = linear.quantize_weights(model, arguments.bits, "symmetric", "channel")
    size = packed.save(arguments.output, model, quantized)
    dense = arguments.file.stat().st_size
    print(f"{arguments.output}: {size:,} bytes, {dense / size:.1f} times smaller")


def whole(least: int, most: int) -> Callable[[str], int]:
    """Reads an option that is a whole number in this range."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: a whole number from {least} to {most}")
        return int(text)

    return read


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.packed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, what in (
        (info, "the architecture, and each tensor's bits, zeros and bytes"),
        (unpack, "write the network as a safetensors file of plain float32 tensors"),
        (verify, "compare the checksum, decode everything and rebuild the network"),
        (pack, "quantize a network's safetensors file (per channel) and pack it"),
    ):
        command = commands.add_parser(function.__name__, help=what, description=what)
        command.set_defaults(function=function)
        command.add_argument("file", metavar="FILE", type=Path)
        if function in (unpack, pack):
            ending = paths.SAFETENSORS if function is unpack else paths.PACKED
            command.add_argument(
                "-o", "--output", metavar="FILE", type=Path, required=True, help=f"a {ending} file"
            )
        if function is pack:
            command.add_argument(
                "--bits", metavar="N", type=whole(2, 16), default=4, help="2 to 16 (default: 4)"
            )
        else:
            command.add_argument(
                "--max-elements",
                metavar="N",
                type=whole(1, 2**40),
                help="how many numbers the network may have (default: what the file's size bears)",
            )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parsed(argv)
    with errors.told():
        arguments.function(arguments)


if __name__ == "__main__":
    main()
