"""How large a packed file is beside what general compressors make of the same integers.

    python -m tests.benchmarks.packed_size MODEL.safetensors [MODEL.safetensors …]

Each network is quantized per output channel (symmetric) to 8, 4 and 3 bits and stored as a packed
file; as the safetensors file with int8 integers that `linear.save_model` writes, in a zip
(DEFLATE, level 9), as .bz2, as .xz (LZMA, preset 9 extreme) and, where that command is there, by
zstd (level 22); and its float32 file in a zip.
Files of the same name (of several seeds) are one row, the mean. Sizes, so nothing here is noisy.
"""

import bz2
import io
import lzma
import math
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import torch

from stages.lib.compression import packed, storage_sizes
from stages.lib.models import checkpoints, prunable
from stages.lib.quantization import linear
from tests.benchmarks.common import parser, timed

BITS = (8, 4, 3)


def zipped(data: bytes) -> int:
    """Bytes of a zip with this as its only file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("model", data)
    return len(buffer.getvalue())


def by_zstd(data: bytes) -> float:
    """What zstd makes of it, in bytes; not a number where there is no zstd."""
    if shutil.which("zstd") is None:
        return math.nan
    command = ["zstd", "--ultra", "-22", "-c", "-q"]
    return len(subprocess.run(command, input=data, capture_output=True, check=True).stdout)


def sizes(path: Path, bits: int) -> dict[str, float]:
    """The sizes in bytes for one network, and the seconds that packing and unpacking took."""
    model = checkpoints.load_model(path)
    quantized = linear.quantize_weights(model, bits, "symmetric", "channel")
    weights = prunable.weights(model).values()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.safetensors"
        linear.save_model(plain, model, quantized)
        integers = plain.read_bytes()
    seconds: dict[str, float] = {}
    with timed(seconds, "pack, s"):
        data = packed.pack(model, quantized)
    with timed(seconds, "unpack, s"):
        packed.unpack(data)
    zeros = sum(int((parts.Q == 0).sum()) for parts in quantized.values())
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "zeros": zeros / sum(weight.numel() for weight in weights),
        "float32": path.stat().st_size,
        "float32 zip": zipped(path.read_bytes()),
        "int8": len(integers),
        "int8 zip": zipped(integers),
        "int8 bz2": len(bz2.compress(integers, 9)),
        "int8 xz": len(lzma.compress(integers, preset=9 | lzma.PRESET_EXTREME)),
        "int8 zst": by_zstd(integers),
        "packed": len(data),
        "bound": storage_sizes.sizes(model, quantized, bits)["entropy_bytes"],
        **seconds,
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("files", metavar="MODEL", nargs="+", type=Path)
    files = arguments.parse_args().files
    torch.set_num_threads(1)
    rows = [
        {"network": path.stem, "bits": bits, **sizes(path, bits)} for path in files for bits in BITS
    ]
    table = pd.DataFrame(rows)
    grouped = table.groupby(["network", "bits"], sort=False)
    mean = grouped.mean()
    mean.insert(0, "n", grouped.size())
    mean["over bound"] = mean["packed"] / mean["bound"] - 1
    mean["xz / packed"] = mean["int8 xz"] / mean["packed"]
    mean["float32 / packed"] = mean["float32"] / mean["packed"]
    print(mean.round(3).reset_index().to_markdown(index=False))


if __name__ == "__main__":
    main()
