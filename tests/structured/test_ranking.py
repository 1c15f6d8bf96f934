"""Which filters are chosen: those of the lowest norms, until the sparsity is met best."""

import numpy as np
import pytest
import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, difference
from stages.lib.models import prunable, registry
from stages.lib.models.origins import copied
from stages.lib.structured import analysis, ranking, removal
from tests import toys

SHAPE = (1, 8, 8)
SPARSITIES = (0.1, 0.5, 0.85)
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "hidden"]


@pytest.fixture(params=["layer", "global"])
def scope(request):
    return request.param


def norms(model, name):
    return model.get_submodule(name).weight.detach().abs().flatten(1).sum(1)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_no_other_number_of_lowest_filters_comes_nearer(model, plan, scope, sparsity):
    """Every unit of the convnet is one filter."""
    removed, whole = ranking.choose(model, plan, sparsity, scope), counting.prunable_weights(model)
    units = np.argsort(ranking.scores(model, plan, scope), kind="stable")
    units = units[plan.allowed[units]]
    candidates = [np.isin(np.arange(len(removed)), units[:count]) for count in range(len(units))]
    assert any((removed == candidate).all() for candidate in candidates)

    def miss(candidate):
        return abs(1 - removal.weights_left(model, plan, candidate) / whole - sparsity)

    misses = [
        miss(candidate)
        for candidate in candidates
        if not any(candidate[filters].all() for filters in plan.filters.values())
    ]
    assert miss(removed) == pytest.approx(min(misses), abs=1e-12)


def test_the_given_network_is_not_changed_and_the_result_is_the_same_each_time(model, plan):
    network = copied(model).train()
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
