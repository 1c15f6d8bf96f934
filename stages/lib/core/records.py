"""The columns of all tables: Row, which describes a network in every stage, and those of the few
other tables.

Accuracies and sparsities are shares (0…1) rounded to six digits. Sizes are bytes. An empty cell is
None. A column that is not here is an error, when writing as when reading.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from stages.lib.core import outputs
from stages.lib.core.errors import UserError

# The `layer` of a row about the whole network. No layer of torch has a name that begins with a dot.
ALL_LAYERS = ".all"
# The entry of a training's state in its file's header.
STATE = "state"
# Columns that are rounded to six digits.
SHARES = ("target_sparsity", "sparsity", "validation_accuracy", "test_accuracy", "test_top5")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured of one network.

    layer: the only layer that was changed, or ALL_LAYERS.
    weight_bits: 32 for weights that are not quantized.
    target_sparsity, sparsity: asked for and reached, shares of the baseline's prunable weights.
    parameters, nonzero_parameters: of all layers, with biases and batch norms.
    macs: multiply-accumulates with a nonzero weight, for one image.
    extra_epochs: of training after the baseline.
    validation_accuracy, test_accuracy: top-1.
    bytes_on_disk: of the network's file.
    test_top5: top-5 accuracy if there are 20 classes or more, else None.
    times_smaller: than the baseline's float32 file, as asked of a packed file; else 1.
    model: the path of the file if it is kept, else empty.
    """

    seed: int
    method: str
    layer: str = ALL_LAYERS
    weight_bits: int = 32
    target_sparsity: float = 0.0
    sparsity: float
    parameters: int
    nonzero_parameters: int
    macs: int
    extra_epochs: int = 0
    validation_accuracy: float
    test_accuracy: float
    bytes_on_disk: int
    test_top5: float | None = None
    times_smaller: float = 1.0
    model: str = ""

    def __post_init__(self) -> None:
        for name in SHARES:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else round(float(value), 6))


# The other tables, named by what a line is about.
class Epoch(NamedTuple):
    """A point of a learning curve. The loss is the mean cross-entropy in nats, None without
    training; accuracies are 0…1, None if not measured.
    """

    epoch: int
    learning_rate: float
    train_loss: float | None
    train_accuracy: float
    validation_accuracy: float | None


class BestSparsity(NamedTuple):
    """The sparsity chosen for a layer, and the validation accuracy with only this layer pruned to
    it (None if the layer is not pruned).
    """

    seed: int
    layer: str
    sparsity: float
    validation_accuracy: float | None


class LayerError(NamedTuple):
    """The error of a quantized layer: the ranges of S and Z (over channels), the mean squared
    error, the error that theory predicts, and their ratio (None if theory predicts no error).
    """

    scale_least: float
    scale_most: float
    zero_point_least: int
    zero_point_most: int
    mse: float
    theory: float
    ratio: float | None


EPOCH, BEST_SPARSITY = Epoch._fields, BestSparsity._fields
QUANTIZED_LAYER = ("seed", "layer", "scheme", "granularity", "bits", *LayerError._fields)
# The parameters of the network, and whether they may be pruned.
LAYER = ("parameter", "kind", "shape", "count", "macs", "prunable")
# Why a layer keeps its filters. coupled_with: names of layers, separated by spaces.
PRUNED_LAYER = ("layer", "filters", "coupled_with", "prunable", "reason")
# An int8 file's layer alone: the signal-to-noise ratio of its output in decibels if its inputs and
# weights are rounded and nothing else is (empty if nothing is lost), and whether it stays float32.
LAYER_NOISE = ("seed", "method", "target_sparsity", "layer", "decibels", "float32")
# How long a layer takes alone in int8 at two widths, for one image on one thread.
LAYER_LATENCY = ("layer", "inputs", "outputs", "microseconds")
# A network or a file that a stage could not make, and why.
REFUSED = ("seed", "method", "target_sparsity", "weight_bits", "times_smaller", "reason")
NO_TRAINING_IMAGES = (
    "it trains, and there are no training images; on the validation images it would be measured by"
    " what it was trained on"
)
# The cost of a network in a number format. tensor_bytes: of weights and buffers, without the file's
# header. accuracy: on the test images, if the network was trained. agreement: the share of
# agreement_images images with the same class as in float32 on the same device (given beside an
# accuracy if that is of these images only). peak_memory_bytes: of a GPU meanwhile.
FORMAT = (
    "network", "image_shape", "device", "dtype", "parameters", "bytes_on_disk", "tensor_bytes",
    "accuracy", "agreement", "agreement_images", "peak_memory_bytes", "note",
)  # fmt: skip
# An ONNX file as an engine executes it: its logits compared with those of the same network in
# torch, on the test images, and its accuracies. engine: empty if there is no file. note: why there
# is no file, why the engine does not execute it, or that its float32 logits differ from torch's.
AGREEMENT = (
    "seed", "method", "engine", "target_sparsity", "weight_bits", "images", "largest_difference",
    "largest_logit", "agreement", "validation_accuracy", "test_accuracy", "model", "note",
)  # fmt: skip
# A latency. engine: executes the network. isa: the instruction sets that decide the speed of
# kernels. Latencies are the median and the IQR for the whole batch. repetitions: the number of
# calls timed. note: why there is no latency, or why it is not ranked.
LATENCY = (
    "seed", "method", "engine", "target_sparsity", "weight_bits", "device", "batch_size", "threads",
    "isa", "latency_ms", "latency_iqr_ms", "repetitions", "model", "note",
)  # fmt: skip
# The bytes of a kept network in every form. file_bytes: of the file that is kept.
FILE_SIZE = (
    "seed", "method", "target_sparsity", "weight_bits", "times_smaller", "dense_bytes",
    "nonzero_bytes", "index_value_bytes", "entropy_bytes", "zip_bytes", "file_bytes", "model",
)  # fmt: skip

# A latency whose IQR is a larger share of its median is measured again. If it stays so, it is not
# ranked.
MOST_IQR = 0.3


def torch_engine(dtype: str, replayed: bool = False) -> str:
    """The `engine` of LATENCY for torch in a number format, eager or replayed from a CUDA graph."""
    name = "torch CUDA graph" if replayed else "torch"
    return name if dtype == "float32" else f"{name} {dtype}"


REMEDY = "delete it and run `dvc repro`"
# Of a table: millions of rows.
MOST_BYTES = 2**30
COLUMNS = {field.name: field.type for field in fields(Row)}


def _share_or_none(cell: str) -> float | None:
    return float(cell) if cell else None


PARSERS = {name: _share_or_none if kind == float | None else kind for name, kind in COLUMNS.items()}


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as CSV, in the given order."""
    outputs.write_csv(path, list(COLUMNS), (asdict(row) for row in rows))


def refusal(seed: int, method: str, reason: str, **about: float) -> dict[str, Any]:
    """A line of REFUSED. about: its other columns, if they are not the baseline's."""
    usual = {"target_sparsity": 0.0, "weight_bits": 32, "times_smaller": 1.0}
    return {"seed": seed, "method": method, **usual, **about, "reason": reason}


def table_text(path: Path) -> str:
    """The text of a CSV of `outputs.write_csv`. UserError if it is missing or cut short."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: more than {MOST_BYTES} bytes; {REMEDY}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: not a readable table; {REMEDY}") from None
    if not text.endswith("\n"):
        raise UserError(f"{path}: cut short; {REMEDY}")
    return text


def check_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises UserError with the file and the differing columns if a table has other columns."""
    if list(found) != list(wanted):
        odd = sorted(set(found) ^ set(wanted)) or ["another order"]
        raise UserError(f"{path}: not the columns of this table ({', '.join(odd)}); {REMEDY}")


def read(path: Path) -> list[Row]:
    """Reads rows. UserError with file and line if a column or a value is wrong."""
    reader = csv.DictReader(table_text(path).splitlines())
    check_columns(path, reader.fieldnames or [], list(COLUMNS))
    rows = []
    for line in reader:
        try:
            if None in line or None in line.values():
                raise ValueError("more or fewer cells than columns")
            rows.append(Row(**{name: parse(line[name]) for name, parse in PARSERS.items()}))
        except (TypeError, ValueError):
            raise UserError(f"{path}: line {reader.line_num} is not a row; {REMEDY}") from None
    return rows


def told(rows: Sequence[Row]) -> str:
    """Whole networks and their validation accuracy: `7 networks, 34.2 to 98.9 % validation`."""
    known = [row.validation_accuracy for row in rows if row.layer == ALL_LAYERS]
    if not known:
        return ""
    if len(known) == 1:
        return f"{100 * known[0]:.1f} % validation"
    least, most = min(known), max(known)
    return f"{len(known)} networks, {100 * least:.1f} to {100 * most:.1f} % validation"
