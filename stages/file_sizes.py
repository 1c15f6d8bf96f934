"""The ladder of sizes of every network that was kept: dense, nonzeros, with their places, entropy
bound, packed, zipped.
"""

from pathlib import Path

from torch import nn
from tqdm import tqdm

from stages.lib import checkpoints, outputs, packed, paths, quantization, records, storing
from stages.lib.cli import run_stage
from stages.lib.quantization import Quantized
from stages.lib.records import Row

KEEPING = (
    "train_baseline", "global_prune", "finetune", "iterative_prune", "equal_budget",
    "structured_prune", "int_quantize", "compress",
)  # fmt: skip
FLOAT32 = 32


def load(row: Row) -> tuple[nn.Module, dict[str, Quantized]]:
    """A kept network, and what its integer weights are, by name."""
    file = Path(row.model)
    if file.suffix == paths.PACKED:
        return packed.load(file)
    if row.weight_bits < FLOAT32:
        return quantization.load_model(file)
    return checkpoints.load_model(file), {}


def line(row: Row) -> dict:
    """A line of records.FILE_SIZE."""
    model, quantized = load(row)
    found = storing.sizes(model, quantized, row.weight_bits)
    return {
        "seed": row.seed,
        "method": row.method,
        "target_sparsity": row.target_sparsity,
        "weight_bits": row.weight_bits,
        "times_smaller": row.times_smaller,
        "dense_bytes": found.dense,
        "nonzero_bytes": found.nonzeros,
        "index_value_bytes": found.index_value,
        "entropy_bytes": found.entropy,
        "zip_bytes": found.zipped,
        "file_bytes": row.bytes_on_disk,
        "model": row.model,
    }


def main(params) -> None:
    rows = [
        row
        for stage in KEEPING
        for seed in params.seeds
        for row in records.read(paths.stage_directory(stage, seed) / paths.ROWS)
        if row.model
    ]
    lines = [line(row) for row in tqdm(rows, "file_sizes", unit="file", leave=False, disable=None)]
    with outputs.whole_directory(paths.stage_directory("file_sizes")) as directory:
        outputs.write_csv(directory / paths.ROWS, records.FILE_SIZE, lines)


if __name__ == "__main__":
    run_stage(main, reads=["seeds"])
