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
    weights = prunable.weights(model)
    return sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in model.state_dict().items()
        if name not in weights
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_float32_sizes_are_the_closed_forms(network, sparsity):
    model = masks.masked(network, masks.uniform(magnitude.scores(network), sparsity))
    sizes = storage_sizes.sizes(model, {}, 32)
    nonzeros = index_value = entropy = 0.0
    for weight in prunable.weights(model).values():
        count, left = weight.numel(), int((weight != 0).sum())
        share = left / count
        parts = [-p * math.log2(p) for p in (share, 1 - share) if p > 0]
        nonzeros += 32 * left
        index_value += left * (32 + math.ceil(math.log2(count)))
        entropy += count * sum(parts) + 32 * left
    assert sizes["dense_bytes"] == checkpoints.serialized_bytes(model)
    assert sizes["nonzero_bytes"] == others(model) + math.ceil(nonzeros / 8)
    assert sizes["index_value_bytes"] == others(model) + math.ceil(index_value / 8)
    assert sizes["entropy_bytes"] == pytest.approx(others(model) + entropy / 8, abs=1)
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
    scales = sum(4 * parts.S.numel() for parts in quantized.values())
    nonzeros = sum(int((weight != 0).sum()) for weight in prunable.weights(model).values())
    assert sizes["nonzero_bytes"] == others(model) + scales + math.ceil(3 * nonzeros / 8)
    entropy = 0.0
    for parts in quantized.values():
        shares = np.unique(parts.Q.numpy(), return_counts=True)[1] / parts.Q.numel()
        entropy -= parts.Q.numel() * float((shares * np.log2(shares)).sum())
    assert sizes["entropy_bytes"] == pytest.approx(others(model) + scales + entropy / 8, abs=1)
    assert sizes["entropy_bytes"] < sizes["dense_bytes"]
