import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import prune

from stages.lib.core.errors import UserError
from stages.lib.models import prunable
from stages.lib.pruning import masks, schedule
from tests import toys

SPARSITIES = [0.0, 0.2, 0.5, 0.8, 0.98]


def distinct(model):
    """Gives every weight another magnitude: on ties, two right implementations may differ."""
    weights = prunable.weights(model)
    generator = torch.Generator().manual_seed(0)
    count = sum(weight.numel() for weight in weights.values())
    magnitudes = (torch.randperm(count, generator=generator) + 1).float()
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    parts = (magnitudes * signs / count).split([weight.numel() for weight in weights.values()])
    for weight, part in zip(weights.values(), parts, strict=True):
        weight.copy_(part.view_as(weight))
    return model


def removed(found):
    return sum(int((~mask).sum()) for mask in found.values())


def size(weights):
    return sum(weight.numel() for weight in weights.values())


@pytest.fixture(scope="module")
def model():
    return distinct(toys.convnet())


@pytest.fixture(scope="module")
def weights(model):
    return prunable.weights(model)


def test_prunable_are_the_weights_of_convolutions_and_linear_layers(weights):
    convolutions = [f"conv{index}.weight" for index in range(1, 7)]
    assert list(weights) == [*convolutions, "hidden.weight", "classifier.weight"]


def test_a_network_that_is_one_layer_is_prunable():
    layer = torch.nn.Conv1d(2, 3, 3)
    assert [weight.shape for weight in prunable.weights(layer).values()] == [layer.weight.shape]


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_layer_magnitude_equals_torch_l1_unstructured(model, weights, sparsity):
    found = masks.layer_magnitude(weights, "conv4.weight", sparsity)["conv4.weight"]
    layer = copy.deepcopy(model.conv4)
    prune.l1_unstructured(layer, "weight", amount=sparsity)
    assert torch.equal(found, layer.weight_mask.bool())


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_global_magnitude_equals_torch_global_unstructured(model, weights, sparsity):
    found = masks.global_magnitude(weights, sparsity)
    reference = copy.deepcopy(model)
    layers = {name: reference.get_submodule(name.removesuffix(".weight")) for name in weights}
    prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()],
        pruning_method=prune.L1Unstructured,
        amount=sparsity,
    )
    for name, layer in layers.items():
        assert torch.equal(found[name], layer.weight_mask.bool())


@pytest.mark.parametrize("sparsity", [*SPARSITIES, 1 / 3, 0.123456, 0.999])
def test_exactly_the_rounded_share_of_weights_goes(weights, sparsity):
    layer = masks.layer_magnitude(weights, "conv3.weight", sparsity)
    assert removed(layer) == round(sparsity * weights["conv3.weight"].numel())
    assert removed(masks.global_magnitude(weights, sparsity)) == round(sparsity * size(weights))


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_uniform_magnitude_removes_the_same_share_of_every_layer(weights, sparsity):
    found = masks.uniform_magnitude(weights, sparsity)
    assert list(found) == list(weights)
    for mask in found.values():
        assert int((~mask).sum()) == round(sparsity * mask.numel())


def test_per_layer_magnitude_gives_each_layer_its_own_sparsity(weights):
    found = masks.per_layer_magnitude(weights, {"conv2.weight": 0.25, "hidden.weight": 0.75})
    assert {name: float((~mask).double().mean()) for name, mask in found.items()} == {
        "conv2.weight": 0.25,
        "hidden.weight": 0.75,
    }


def test_one_threshold_separates_kept_from_removed_weights(weights):
    found = masks.global_magnitude(weights, 0.6)
    gone = torch.cat([weights[name][~mask].abs() for name, mask in found.items()])
    kept = torch.cat([weights[name][mask].abs() for name, mask in found.items()])
    assert gone.max() < kept.min()


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
@toys.few_examples
def test_ties_are_resolved_to_the_exact_count(values, sparsity):
    weights = {"layer": torch.tensor(values).float()}
    keep = masks.global_magnitude(weights, sparsity)["layer"]
    assert int((~keep).sum()) == round(sparsity * len(values))
    if 0 < keep.sum() < len(values):
        magnitudes = weights["layer"].abs()
        assert magnitudes[~keep].max() <= magnitudes[keep].min()


def test_ties_go_in_storage_order():
    keep = masks.global_magnitude({"first": torch.ones(3), "second": torch.ones(3)}, 4 / 6)
    assert keep["first"].tolist() == [False, False, False]
    assert keep["second"].tolist() == [False, True, True]


def test_masks_only_shrink_over_the_rounds(weights):
    rounds = {name: weight.clone() for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(1)
    before = None
    for sparsity in schedule.sparsities(0.2, 0.9, [0.5]):
        found = masks.global_magnitude(rounds, sparsity, within=before)
        assert removed(found) == round(sparsity * size(weights))
        if before is not None:
            assert all(not (found[name] & ~before[name]).any() for name in found)
        before = found
        # Training moves all weights in between, those that were removed too.
        for weight in rounds.values():
            weight.copy_(torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("smallest", [0.0, 1.0])
def test_earlier_removals_go_first_even_where_they_are_large(smallest):
    weights = {"layer": torch.tensor([smallest, 9.0, 8.0, 3.0])}
    within = {"layer": torch.tensor([True, False, False, True])}
    keep = masks.global_magnitude(weights, 0.5, within=within)
    assert keep["layer"].tolist() == [True, False, False, True]
    keep = masks.global_magnitude(weights, 0.75, within=within)
    assert keep["layer"].tolist() == [False, False, False, True]


def by_chance(weights, seed=0):
    return masks.random_scores(weights, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_chance_removes_as_many_weights_as_magnitude_does(weights, sparsity):
    scores = by_chance(weights)
    assert removed(masks.global_magnitude(scores, sparsity)) == round(sparsity * size(weights))
    for name, mask in masks.uniform_magnitude(scores, sparsity).items():
        assert int((~mask).sum()) == round(sparsity * weights[name].numel())


def test_chance_is_repeatable_nested_and_blind_to_the_weights(weights):
    scores = by_chance(weights)
    chosen = [masks.global_magnitude(scores, sparsity) for sparsity in (0.3, 0.6)]
    again = masks.global_magnitude(by_chance({n: -3 * w for n, w in weights.items()}), 0.6)
    other = masks.global_magnitude(by_chance(weights, seed=1), 0.6)
    for name in weights:
        assert not (chosen[1][name] & ~chosen[0][name]).any()
        assert torch.equal(chosen[1][name], again[name])
    assert any(not torch.equal(chosen[1][name], other[name]) for name in weights)


def test_chance_takes_about_the_same_share_of_every_layer(weights):
    for mask in masks.global_magnitude(by_chance(weights), 0.5).values():
        deviation = (0.25 / mask.numel()) ** 0.5
        assert float((~mask).double().mean()) == pytest.approx(0.5, abs=5 * deviation)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_outside_its_range_raises(weights, sparsity):
    for method in (
        lambda: masks.layer_magnitude(weights, "conv1.weight", sparsity),
        lambda: masks.uniform_magnitude(weights, sparsity),
        lambda: masks.global_magnitude(weights, sparsity),
    ):
        with pytest.raises(ValueError, match="outside"):
            method()


def test_masked_changes_the_masked_layer_of_a_copy_and_nothing_else(model):
    before = copy.deepcopy(model)
    found = masks.layer_magnitude(prunable.weights(model), "conv5.weight", 0.5)
    pruned = masks.masked(model, found)
    assert toys.same_state(model, before)
    assert torch.equal(pruned.conv5.weight, model.conv5.weight * found["conv5.weight"])
    pruned.conv5.weight.data.copy_(model.conv5.weight)
    assert toys.same_state(pruned, model)


def test_the_masks_of_a_pruned_network_are_read_off_its_zeros(model, weights):
    found = masks.global_magnitude(weights, 0.7)
    again = masks.of_zeros(masks.masked(model, found))
    assert list(again) == list(found)
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_apply_keeps_weights_trainable(model):
    copied = copy.deepcopy(model)
    masks.apply_(copied, masks.global_magnitude(prunable.weights(copied), 0.5))
    assert all(parameter.requires_grad for parameter in copied.parameters())
    assert all(parameter.is_leaf for parameter in copied.parameters())


def test_methods_do_not_change_the_weights(model):
    before = copy.deepcopy(model)
    weights = prunable.weights(model)
    masks.global_magnitude(weights, 0.5, within=masks.global_magnitude(weights, 0.3))
    masks.uniform_magnitude(weights, 0.5)
    assert toys.same_state(model, before)


def test_channels_last_weights_get_the_same_masks(model):
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert not last.conv3.weight.is_contiguous()
    plain, other = prunable.weights(model), prunable.weights(last)
    for method in (
        lambda weights: masks.global_magnitude(weights, 0.6),
        lambda weights: masks.uniform_magnitude(weights, 0.6),
    ):
        found, again = method(plain), method(other)
        assert all(torch.equal(found[name], again[name]) for name in plain)
    masks.apply_(last, masks.global_magnitude(other, 0.6))


hundredths = st.integers(1, 99).map(lambda count: count / 100)


@given(hundredths, hundredths, st.lists(st.integers(0, 100).map(lambda n: n / 100), max_size=5))
@toys.few_examples
def test_schedule_climbs_to_the_target_by_steps_and_stops(step, target, stops):
    points = schedule.sparsities(step, target, stops)
    assert points == sorted(set(points))
    assert points[-1] == target
    assert points[0] > 0
    multiples = [round(step * n, 2) for n in range(1, 100) if round(step * n, 2) < target]
    assert set(multiples) <= set(points)
    wanted = {stop for stop in stops if 0 < stop < target}
    assert wanted <= set(points)
    assert set(points) <= wanted | set(multiples) | {target}
    strides = [after - before for before, after in pairwise([0.0, *points])]
    assert max(strides) <= step + 1e-6


@pytest.mark.parametrize(
    ("step", "target", "stops", "expected"),
    [
        (0.1, 0.3, [], [0.1, 0.2, 0.3]),
        (0.5, 0.3, [], [0.3]),
        (0.2, 0.5, [0.3, 0.4, 0.5, 0.9], [0.2, 0.3, 0.4, 0.5]),
        (0.3, 0.98, [0.95], [0.3, 0.6, 0.9, 0.95, 0.98]),
    ],
)
def test_schedule_of_known_cases(step, target, stops, expected):
    assert schedule.sparsities(step, target, stops) == expected


def test_attentions_projections_are_prunable_each_once():
    joint = torch.nn.MultiheadAttention(8, 2)
    assert list(prunable.weights(joint)) == ["in_proj_weight", "out_proj.weight"]
    apart = torch.nn.MultiheadAttention(8, 2, kdim=4, vdim=6, bias=False)
    assert {name: tuple(weight.shape) for name, weight in prunable.weights(apart).items()} == {
        "q_proj_weight": (8, 8),
        "k_proj_weight": (8, 4),
        "v_proj_weight": (8, 6),
        "out_proj.weight": (8, 8),
    }


def test_a_layer_is_named_without_its_weight_and_attention_with_it():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.MultiheadAttention(2, 1))
    assert [prunable.layer_of(name) for name in prunable.weights(network)] == [
        "0",
        "1.in_proj_weight",
        "1.out_proj",
    ]


def test_layers_are_convolutions_and_linear_layers_alone():
    network = torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv2d(1, 1, 1),
            "up": torch.nn.ConvTranspose2d(1, 1, 1),
            "norm": torch.nn.BatchNorm2d(1),
            "words": torch.nn.Embedding(3, 2),
            "fc": torch.nn.Linear(1, 1),
        }
    )
    assert list(prunable.layers(network)) == ["conv", "fc"]
    assert list(prunable.weights(network)) == ["conv.weight", "fc.weight"]


def test_a_shared_weight_is_listed_once_and_masked_in_both_layers():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    network[2].weight = network[0].weight
    assert list(prunable.weights(network)) == ["0.weight"]
    pruned = masks.masked(network, masks.uniform_magnitude(prunable.weights(network), 0.5))
    assert int((pruned[2].weight == 0).sum()) == 8
    twice = torch.nn.Sequential(network[0], network[0])
    assert list(prunable.weights(twice)) == ["0.weight"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "reparametrize",
    [
        torch.nn.utils.weight_norm,
        torch.nn.utils.spectral_norm,
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.orthogonal,
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    ],
)
def test_a_weight_that_is_computed_from_others_is_refused_by_name(reparametrize):
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sequential(torch.nn.Linear(4, 4)))
    reparametrize(network[1][0])
    with pytest.raises(UserError, match=r"layer 1\.0: its weight is computed") as caught:
        prunable.weights(network)
    assert "remove_parametrizations" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parametrized_attention_is_refused_too():
    network = torch.nn.Sequential(torch.nn.MultiheadAttention(4, 1))
    prune.l1_unstructured(network[0], "in_proj_weight", amount=0.5)
    with pytest.raises(UserError, match="layer 0: its weight is computed"):
        prunable.weights(network)
