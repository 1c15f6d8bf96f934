"""What a network takes in each form, against closed forms and a zip archive."""

import io
import math
import zipfile

import numpy as np
import pytest
from safetensors.torch import save

from stages.lib.compression import storage_sizes
from stages.lib.core import paths
from stages.lib.models import checkpoints, prunable
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.quantization import linear
from tests import toys


@pytest.fixture(scope="module")
def network():
    return toys.lived_in(toys.convnet()).eval()


def others(model):
    """The bytes of all that is no prunable weight."""
    state, weights = checkpoints.tensors_of(model), prunable.weights(model)
    return sum(state[name].nbytes for name in state.keys() - weights.keys())


def entropy(values):
    """n · H in bytes."""
    _, counts = np.unique(values, return_counts=True)
    return -float((counts * np.log2(counts / values.numel())).sum()) / 8


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_float32_sizes_are_the_closed_forms(network, sparsity):
    model = masks.masked(network, masks.uniform(magnitude.scores(network), sparsity))
    sizes = storage_sizes.sizes(model, {}, 32)
    weights = prunable.weights(model).values()
    left = [int((weight != 0).sum()) for weight in weights]
    positions = [
        count * math.ceil(math.log2(weight.numel()))
        for count, weight in zip(left, weights, strict=True)
    ]
    whole = others(model) + 4 * sum(left)
    assert sizes["dense_bytes"] == checkpoints.serialized_bytes(model)
    assert sizes["nonzero_bytes"] == whole
    assert sizes["index_value_bytes"] == whole + math.ceil(sum(positions) / 8)
    masked = sum(entropy(weight != 0) for weight in weights)
    assert sizes["entropy_bytes"] == pytest.approx(whole + masked, abs=1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(paths.MODEL, save(checkpoints.tensors_of(model)))
    assert sizes["zip_bytes"] == len(buffer.getvalue())


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_integer_weights_count_their_own_zeros(network, scheme, granularity):
    quantized = linear.quantize_weights(network, 3, scheme, granularity)
    model = linear.with_weights(network, quantized)
    sizes = storage_sizes.sizes(model, quantized, 3)
    beside = others(model) + sum(parts.S.nbytes for parts in quantized.values())
    nonzeros = sum(int((weight != 0).sum()) for weight in prunable.weights(model).values())
    assert sizes["nonzero_bytes"] == beside + math.ceil(3 * nonzeros / 8)
    codes = sum(entropy(parts.Q) for parts in quantized.values())
    assert sizes["entropy_bytes"] == pytest.approx(beside + codes, abs=1)
