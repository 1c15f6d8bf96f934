"""Which weights pruning may touch."""

import pytest
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from stages.lib.models import prunable
from tests import toys


def test_the_weights_of_convolutions_and_linear_layers_are_prunable_and_no_others():
    convolutions = [f"conv{index}.weight" for index in range(1, 7)]
    expected = [*convolutions, "hidden.weight", "classifier.weight"]
    assert list(prunable.weights(toys.convnet())) == expected
    layers = {
        "conv": nn.Conv2d(1, 1, 1), "up": nn.ConvTranspose2d(1, 1, 1), "norm": nn.BatchNorm2d(1),
        "words": nn.Embedding(3, 2), "fc": nn.Linear(1, 1),
    }  # fmt: skip
    network = nn.ModuleDict(layers)
    assert list(prunable.layers(network)) == ["conv", "fc"]
    assert list(prunable.weights(network)) == ["conv.weight", "fc.weight"]
    # A network that is one layer, and its weight itself, without its gradient.
    layer = nn.Conv1d(2, 3, 3)
    (weight,) = prunable.weights(layer).values()
    assert (weight.data_ptr(), weight.requires_grad) == (layer.weight.data_ptr(), False)


def test_attentions_projections_are_prunable_each_once():
    joint = nn.MultiheadAttention(8, 2)
    assert list(prunable.weights(joint)) == ["in_proj_weight", "out_proj.weight"]
    # A layer is named without its weight, and a projection with it.
    assert [*map(prunable.layer_of, prunable.weights(joint))] == ["in_proj_weight", "out_proj"]
    apart = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, bias=False)
    expected = [*(f"{name}_proj_weight" for name in "qkv"), "out_proj.weight"]
    assert list(prunable.weights(apart)) == expected


def test_a_shared_weight_is_listed_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    for network in (nn.Sequential(first, nn.ReLU(), second), nn.Sequential(first, first)):
        assert list(prunable.weights(network)) == ["0.weight"]


@pytest.mark.parametrize(
    ("layer", "reparametrize", "remedy"),
    [
        (nn.Linear(4, 4), spectral_norm, "utils.remove_spectral_norm"),
        (nn.Linear(4, 4), weight_norm, "utils.remove_weight_norm"),
        (nn.Linear(4, 4), parametrizations.orthogonal, "remove_parametrizations"),
        (
            nn.Linear(4, 4),
            lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
            "prune.remove(layer, 'weight')",
        ),
        (
            nn.MultiheadAttention(4, 1),
            lambda layer: prune.l1_unstructured(layer, "in_proj_weight", amount=0.5),
            "prune.remove(layer, 'in_proj_weight')",
        ),
    ],
)
def test_a_weight_that_is_computed_from_others_is_excluded_with_its_remedy(
    layer, reparametrize, remedy
):
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer))
    reparametrize(layer)
    ((name, reason),) = prunable.excluded(network).items()
    assert name.startswith("1.0.")
    assert reason.startswith("its weight is computed from other parameters")
    assert reason.endswith(remedy)
    assert name not in prunable.weights(network)
    assert "0.weight" in prunable.weights(network)
