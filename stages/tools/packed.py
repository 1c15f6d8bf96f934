"""Inspects, verifies and unpacks packed networks, and packs a network's file.

Exit code 0: done, or the file is sound; 2: the file is damaged, or something else is wrong.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import tabulate

from stages.lib.compression import container, packed, packed_summary
from stages.lib.compression.packed_summary import Summary
from stages.lib.core import custom_model, errors, outputs, paths
from stages.lib.models import checkpoints
from stages.lib.quantization import linear


def totals(summary: Summary) -> str:
    """One line with a file's sizes."""
    return (
        f"{summary.file_bytes:,} bytes, of which {summary.header_bytes:,} header and"
        f" {summary.payload_bytes:,} coded; {summary.dense_bytes / summary.file_bytes:.1f} times"
        f" smaller than {summary.dense_bytes:,} of plain tensors"
    )


def table(summary: Summary) -> str:
    """A line for each tensor of a file."""
    rows = [
        (
            tensor.name,
            "×".join(map(str, tensor.shape)) or "1",
            tensor.stored,
            f"{tensor.sparsity:.1%}",
            f"{tensor.coded_bytes:,.1f}",
            f"{tensor.bound_bytes:,.1f}",
        )
        for tensor in summary.tensors
    ]
    return tabulate.tabulate(
        rows,
        headers=("tensor", "shape", "stored as", "zeros", "bytes", "bound"),
        tablefmt="plain",
        disable_numparse=True,
        colalign=("left",) * 3 + ("right",) * 3,
    )


def decoded(arguments: argparse.Namespace) -> packed.Contents:
    """The file as far as it is read without its network."""
    data = packed.read(arguments.file)
    return packed.decode(data, str(arguments.file), arguments.max_elements, arguments.network)


def info(arguments: argparse.Namespace) -> None:
    """Tell the architecture, and each tensor's bits, zeros and bytes."""
    summary = packed_summary.summarize(decoded(arguments))
    architecture = json.dumps(summary.architecture, ensure_ascii=False)
    print(f"packed network, format version {container.VERSION}: {architecture}\n")
    print(f"{table(summary)}\n\n{totals(summary)}")
    print(
        "bound (Shannon entropy of the integers, all else raw):"
        f" {summary.bound_bytes:,.1f} bytes; the file: {summary.overhead:+.2%}"
    )


def verify(arguments: argparse.Namespace) -> None:
    """Compare the checksum, decode everything and rebuild the network."""
    contents = decoded(arguments)
    packed.rebuilt(contents)
    print(f"{arguments.file}: sound: {totals(packed_summary.summarize(contents))}")


def unpack(arguments: argparse.Namespace) -> None:
    """Write the network as a safetensors file of plain float32 tensors."""
    model = packed.rebuilt(decoded(arguments))
    with outputs.whole_file(arguments.output) as partial:
        size = checkpoints.save_model(model, partial)
    print(f"{arguments.output}: {size:,} bytes")


def pack(arguments: argparse.Namespace) -> None:
    """Quantize a network's safetensors file (per channel) and pack it."""
    _, architecture = checkpoints.load_tensors(arguments.file, checkpoints.KEY)
    if isinstance(architecture, dict):
        custom_model.check_allowed(architecture.get("name"), arguments.network)
    model = checkpoints.load_model(arguments.file)
    quantized = linear.quantize_weights(model, arguments.bits, "symmetric", "channel")
    size = packed.save(arguments.output, model, quantized)
    dense = arguments.file.stat().st_size
    print(f"{arguments.output}: {size:,} bytes, {dense / size:.1f} times smaller")


def elements(text: str) -> int:
    """Reads how many numbers a network may have."""
    if not text.isdecimal() or not 1 <= int(text) <= 2**40:
        raise argparse.ArgumentTypeError(f"{text}: an integer from 1 to 2^40")
    return int(text)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.packed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (info, unpack, verify, pack):
        about = {"help": function.__doc__, "description": function.__doc__}
        command = commands.add_parser(function.__name__, **about)
        command.set_defaults(function=function)
        command.add_argument("file", metavar="FILE", type=Path)
        allowed = "the custom network that the file may name: building it runs that code"
        command.add_argument("--network", metavar="FILE.py:FACTORY", help=allowed)
        if function in (unpack, pack):
            ending = paths.SAFETENSORS if function is unpack else paths.PACKED
            command.add_argument(
                "-o", "--output", metavar="FILE", type=Path, required=True, help=f"a {ending} file"
            )
        if function is pack:
            bits = {"choices": range(2, 17), "default": 4, "help": "2 to 16 (default: 4)"}
            command.add_argument("--bits", metavar="N", type=int, **bits)
        else:
            most = "how many numbers the network may have (default: what the file's size bears)"
            command.add_argument("--max-elements", metavar="N", type=elements, help=most)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parsed(argv)
    with errors.told():
        arguments.function(arguments)


if __name__ == "__main__":
    main()
