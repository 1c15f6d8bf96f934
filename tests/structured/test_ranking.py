"""Which filters are chosen: those of the lowest norms, until the sparsity is met best."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, difference
from stages.lib.models import checkpoints, prunable, registry
from stages.lib.structured import analysis, ranking, removal
from tests import toys
from tests.structured.networks import filters_of

SHAPE = (1, 8, 8)
SPARSITIES = (0.1, 0.5, 0.85)
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "hidden"]


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet(8))


@pytest.fixture(scope="module")
def plan(model):
    return analysis.analyse(model, SHAPE)


def layer_scores(model, plan, scope):
    """Scores by layer and filter: every unit of the convnet is one filter."""
    values = ranking.scores(model, plan, scope)
    return {name: torch.tensor(values[plan.filters[name]]) for name in LAYERS}


@pytest.fixture(params=["layer", "global"])
def scope(request):
    return request.param


def chosen(model, plan, sparsity, scope):
    return filters_of(plan, ranking.choose(model, plan, sparsity, scope))


def norms(model, name):
    return model.get_submodule(name).weight.detach().abs().flatten(1).sum(1)


def weights_left(model, filters):
    """Prunable weights of the convnet without these filters, counted by hand."""
    widths = {name: len(model.get_submodule(name).weight) for name in LAYERS}
    widths |= {name: widths[name] - len(indices) for name, indices in filters.items()}
    *channels, hidden = (widths[name] for name in LAYERS)
    convolutions = sum(9 * before * after for before, after in pairwise([1, *channels]))
    return convolutions + channels[-1] * hidden + hidden * model.classifier.out_features


def lowest(scored, count):
    """The `count` lowest scored filters, sorted by hand."""
    order = sorted(
        (float(score), LAYERS.index(name), index)
        for name, values in scored.items()
        for index, score in enumerate(values)
    )
    filters = {}
    for _, layer, index in order[:count]:
        filters.setdefault(LAYERS[layer], []).append(index)
    return {name: sorted(indices) for name, indices in filters.items()}


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_no_other_number_of_lowest_filters_comes_nearer(model, plan, scope, sparsity):
    scored = layer_scores(model, plan, scope)
    filters = chosen(model, plan, sparsity, scope)
    whole = weights_left(model, {})
    assert whole == counting.prunable_weights(model)
    candidates = [lowest(scored, count) for count in range(1, sum(map(len, scored.values())))]
    assert filters in candidates
    misses = [
        abs(1 - weights_left(model, candidate) / whole - sparsity)
        for candidate in candidates
        if all(len(scored[name]) > len(indices) for name, indices in candidate.items())
    ]
    reached = 1 - weights_left(model, filters) / whole
    assert abs(reached - sparsity) == pytest.approx(min(misses), abs=1e-12)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_layer_scope_takes_the_same_share_of_every_layer(model, plan, sparsity):
    filters = chosen(model, plan, sparsity, "layer")
    shares = [(len(filters.get(name, ())), len(norms(model, name))) for name in LAYERS]
    # Rounded to whole filters, each share is at most half a filter from the common one.
    least = max((count - 0.5) / size for count, size in shares)
    most = min((count + 0.5) / size for count, size in shares)
    assert least <= most + 1e-9


def test_parameters_macs_and_file_fall_with_the_sparsity(model, plan, scope):
    choices = [ranking.choose(model, plan, sparsity, scope) for sparsity in SPARSITIES]
    networks = [model, *(removal.remove(model, plan, removed) for removed in choices)]
    for measure in (
        counting.parameters,
        lambda network: counting.macs(network, SHAPE),
        checkpoints.serialized_bytes,
    ):
        assert all(after < before for before, after in pairwise(map(measure, networks)))


def test_the_given_network_is_not_changed_and_the_result_is_the_same_each_time(model, plan):
    network = copy.deepcopy(model).train()
    removed = ranking.choose(network, analysis.analyse(network, SHAPE), 0.5, "global")
    small = removal.remove(network, plan, removed)
    assert (removed == ranking.choose(model, plan, 0.5, "global")).all()
    assert toys.same_state(small, removal.remove(model, plan, removed))
    assert toys.same_state(network, model)
    assert network.training
    assert registry.architecture_of(network) == registry.architecture_of(model)


@pytest.mark.parametrize(
    ("sparsity", "multiple", "problem"),
    [
        (1e-6, 1, "sparsity 1e-06 with scope {scope} would remove nothing at all"),
        (
            0.9999,
            1,
            r"sparsity 0.9999 with scope {scope} cannot be reached: {most:.4f} is the most",
        ),
        (0.5, 64, "multiples of 64"),
    ],
)
def test_a_sparsity_out_of_reach_is_refused(model, plan, scope, sparsity, multiple, problem):
    # One filter in each layer: six convolutions, the hidden layer, three classes.
    most = 1 - (6 * 9 + 1 + 3) / counting.prunable_weights(model)
    with pytest.raises(UserError, match=problem.format(scope=scope, most=most)):
        ranking.choose(model, plan, sparsity, scope, multiple)
    small = removal.remove(model, plan, ranking.choose(model, plan, most - 1e-6, scope))
    assert [len(norms(small, name)) for name in LAYERS] == [1] * len(LAYERS)


def test_a_network_of_one_filter_per_layer_cannot_lose_any():
    description = registry.architecture("convnet", 4, 1, 3) | {"channels": [1] * 6, "hidden": 1}
    reason = "no layer of the network can lose filters .*conv1: it has a single filter"
    with pytest.raises(UserError, match=reason):
        analysis.analyse(registry.build_seeded(description, 0), SHAPE)


def test_the_largest_difference_is_relative_to_the_largest_logit():
    one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    one.weight.data = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    other.weight.data = torch.tensor([[4.0, 0.0], [0.0, 3.0]])
    assert difference.largest(one, other, torch.eye(2)) == 0.5
    assert difference.largest(one, one, torch.eye(2)) == 0


@pytest.mark.parametrize("multiple", [1, 2, 4, 8])
def test_layers_that_lose_filters_keep_a_multiple(model, plan, multiple, scope):
    whole = counting.prunable_weights(model)
    for sparsity in (0.3, 0.6, 0.8):
        removed = ranking.choose(model, plan, sparsity, scope, multiple)
        small = removal.remove(model, plan, removed)
        for name, layer in prunable.layers(small).items():
            before = len(norms(model, name))
            assert len(layer.weight) == before or len(layer.weight) % multiple == 0
        # One step of the widest layers is the most that the target can be missed by.
        reached = 1 - counting.prunable_weights(small) / whole
        assert abs(reached - sparsity) < 0.02 + 0.02 * multiple
