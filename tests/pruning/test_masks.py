import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import prune

from stages.lib.pruning import masks, schedule
from stages.lib.pruning.criteria import magnitude
from tests import toys

SPARSITIES = [0.0, 1 / 3, 0.5, 0.98, 0.999]


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


@pytest.fixture(scope="module")
def scores(model):
    return magnitude.scores(model)


def removed(found):
    return sum(int((~mask).sum()) for mask in found.values())


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_masks_of_magnitudes_are_those_of_torch(model, scores, sparsity):
    alone, together = copy.deepcopy(model), copy.deepcopy(model)
    names = [(name, name.removesuffix(".weight")) for name in scores]
    for _, layer in names:
        prune.l1_unstructured(alone.get_submodule(layer), "weight", amount=sparsity)
    prune.global_unstructured(
        [(together.get_submodule(layer), "weight") for _, layer in names],
        pruning_method=prune.L1Unstructured,
        amount=sparsity,
    )
    for reference, found in (
        (alone, masks.uniform(scores, sparsity)),
        (together, masks.global_(scores, sparsity)),
    ):
        assert list(found) == list(scores)
        for name, layer in names:
            expected = reference.get_submodule(layer).weight_mask.bool()
            assert torch.equal(found[name], expected)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
@toys.few_examples
def test_ties_are_resolved_to_the_exact_count(values, sparsity):
    scores = torch.tensor(values).float()
    keep = masks.keep_largest(scores, sparsity)
    removed = round(sparsity * len(values))
    # Ties go in the order of the weights.
    order = sorted(range(len(values)), key=lambda index: values[index])
    assert (~keep).nonzero().flatten().tolist() == sorted(order[:removed])


def test_masks_only_shrink_over_the_steps(scores):
    # Training moves all weights in between, those that were removed too.
    generator = torch.Generator().manual_seed(1)
    before = None
    for sparsity in schedule.sparsities(0.2, 0.9, [0.5]):
        moved = {
            name: torch.rand(score.shape, generator=generator) for name, score in scores.items()
        }
        found = masks.global_(moved, sparsity, within=before)
        assert removed(found) == round(sparsity * sum(map(torch.numel, scores.values())))
        if before is not None:
            assert all(not (found[name] & ~before[name]).any() for name in found)
        before = found


@pytest.mark.parametrize("scope", masks.SCOPES)
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_outside_its_range_raises(scores, sparsity, scope):
    with pytest.raises(ValueError, match="outside"):
        masks.SCOPES[scope](scores, sparsity)


def test_masked_changes_the_masked_layer_of_a_copy_and_nothing_else(model, scores):
    before = copy.deepcopy(model)
    found = masks.per_layer(scores, {"conv5.weight": 0.5})
    pruned = masks.masked(model, found)
    assert toys.same_state(model, before)
    assert torch.equal(pruned.conv5.weight, model.conv5.weight * found["conv5.weight"])
    assert all(weight.requires_grad and weight.is_leaf for weight in pruned.parameters())
    pruned.conv5.weight.data.copy_(model.conv5.weight)
    assert toys.same_state(pruned, model)


def test_the_masks_of_a_pruned_network_are_read_off_its_zeros(model, scores):
    found = masks.global_(scores, 0.7)
    again = masks.of_zeros(masks.masked(model, found))
    assert list(again) == list(found)
    assert all(torch.equal(again[name], found[name]) for name in found)


@pytest.mark.parametrize("choose", masks.SCOPES.values(), ids=masks.SCOPES)
def test_channels_last_weights_get_the_same_masks(model, scores, choose):
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert not last.conv3.weight.is_contiguous()
    found, again = choose(scores, 0.6), choose(magnitude.scores(last), 0.6)
    assert all(torch.equal(found[name], again[name]) for name in scores)
    assert toys.same_state(masks.masked(last, again), masks.masked(model, found))


hundredths = st.integers(1, 99).map(lambda count: count / 100)


@given(hundredths, hundredths, st.lists(st.integers(0, 100).map(lambda n: n / 100), max_size=5))
@toys.few_examples
def test_schedule_climbs_to_the_target_by_steps_and_stops(step, target, stops):
    points = schedule.sparsities(step, target, stops)
    assert points == sorted(set(points))
    assert points[-1] == target
    assert points[0] > 0
    multiples = [round(step * n, 2) for n in range(1, 100) if round(step * n, 2) < target]
    wanted = {stop for stop in stops if 0 < stop < target}
    assert set(points) == wanted | set(multiples) | {target}
    strides = [after - before for before, after in pairwise([0.0, *points])]
    assert max(strides) <= step + 1e-6
