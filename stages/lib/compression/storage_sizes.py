"""The bytes of a network in every form in which it can be stored."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import nn

from stages.lib.compression import entropy, packed
from stages.lib.core import methods, paths
from stages.lib.core.records import Row
from stages.lib.models import checkpoints, prunable
from stages.lib.quantization import linear
from stages.lib.quantization.linear import Quantized

FLOAT_BITS = 32


def zip_bytes(data: bytes, name: str) -> int:
    """The size of a zip archive that holds this one file, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getbuffer().nbytes


def sizes(model: nn.Module, quantized: Mapping[str, Quantized], bits: int) -> dict[str, int]:
    """The bytes of a network, by column of records.FILE_SIZE. Biases, norms and scales count
    uncompressed, except in the first and the last.

    dense_bytes: the float32 file with its zeros.
    nonzero_bytes: the nonzero values, as if their positions took no space.
    index_value_bytes: the nonzero values with the position of each.
    entropy_bytes: the Shannon bound. Quantized weights: n · H of their integers. Other weights:
        n · H of which are zero, and the nonzero values uncompressed.
    zip_bytes: the float32 file in a zip archive (DEFLATE).

    quantized: the integer weights, of `bits` each; empty for a float32 network.
    """
    state = checkpoints.tensors_of(model)
    weights = prunable.weights(model)
    raw = sum(state[name].nbytes for name in state.keys() - weights.keys() - quantized.keys())
    nonzeros = index_value = bound = 0.0
    for name in weights:
        parts = quantized.get(name)
        if parts is None:
            values, width = state[name].numpy(), FLOAT_BITS
            mask = (values != 0).astype(np.int8)
            bound += entropy.bound_bits(mask) + width * np.count_nonzero(values)
        else:
            values, width = linear.steps(parts).numpy(), min(bits, 8 * parts.Q.element_size())
            bound += entropy.bound_bits(parts.Q.numpy())
            raw += parts.S.nbytes
        count, position_bits = np.count_nonzero(values), max(values.size - 1, 0).bit_length()
        nonzeros += count * width
        index_value += count * (width + position_bits)
    return {
        "dense_bytes": checkpoints.serialized_bytes(model),
        "nonzero_bytes": raw + math.ceil(nonzeros / 8),
        "index_value_bytes": raw + math.ceil(index_value / 8),
        "entropy_bytes": raw + math.ceil(bound / 8),
        "zip_bytes": zip_bytes(save(state), paths.MODEL),
    }


def load(row: Row, network: str) -> tuple[nn.Module, dict[str, Quantized]]:
    """A kept network, and its quantized weights by name."""
    file, family = Path(row.model), methods.METHODS[row.method].family
    if family == methods.PACKED:
        return packed.load(file, network=network)
    if family == methods.INTEGER:
        return linear.load_model(file, network)
    return checkpoints.load_model(file, network=network), {}


def line(row: Row, network: str) -> dict[str, Any]:
    """The line of records.FILE_SIZE for a network whose file is kept. network: `model.name`."""
    shared = ("seed", "method", "target_sparsity", "weight_bits", "times_smaller", "model")
    about = {name: getattr(row, name) for name in shared}
    return about | sizes(*load(row, network), row.weight_bits) | {"file_bytes": row.bytes_on_disk}
