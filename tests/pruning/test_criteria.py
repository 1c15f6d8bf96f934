"""What every criterion of stages/lib/pruning/criteria owes, and what chance is."""

import copy
from importlib import import_module
from pathlib import Path

import pytest
import torch

from stages.lib.core.methods import METHODS
from stages.lib.models import prunable
from stages.lib.pruning import criteria, masks
from stages.lib.pruning.criteria import random
from tests import toys

NAMES = [path.stem for path in Path(criteria.__path__[0]).glob("*.py") if path.stem != "__init__"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


def test_methods_are_registered_by_a_criterion_and_a_scope_that_there_are():
    chosen = {(one.criterion, one.scope) for one in METHODS.values() if one.criterion}
    assert {criterion for criterion, _ in chosen} <= set(NAMES)
    assert {scope for _, scope in chosen} <= set(masks.SCOPES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_a_criterion_scores_every_prunable_weight_and_leaves_the_network_alone(
    model, name, training
):
    network = copy.deepcopy(model).train(training)
    network.conv1.weight.requires_grad_(False)
    before, criterion = copy.deepcopy(network), import_module(f"{criteria.__name__}.{name}")
    scores, again = (criterion.scores(network, toys.halves(12), generator()) for _ in range(2))
    weights = prunable.weights(network)
    assert list(scores) == list(weights)
    for weight, score in scores.items():
        assert score.shape == weights[weight].shape
        assert bool((score >= 0).all())
        assert not score.requires_grad
        assert torch.equal(score, again[weight])
    assert toys.same_state(network, before)
    assert all(module.training is training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [parameter.requires_grad for parameter in network.parameters()] == [
        parameter.requires_grad for parameter in before.parameters()
    ]


def test_chance_follows_its_generator_and_is_blind_to_the_weights(model):
    other = copy.deepcopy(model)
    for weight in prunable.weights(other).values():
        weight.mul_(-3)
    scores, again, changed = (
        random.scores(network, None, generator(seed))
        for network, seed in ((model, 0), (other, 0), (model, 1))
    )
    assert all(torch.equal(scores[name], again[name]) for name in scores)
    assert not any(torch.equal(scores[name], changed[name]) for name in scores)


def test_chance_takes_about_the_same_share_of_every_layer(model):
    for mask in masks.global_(random.scores(model, None, generator()), 0.5).values():
        deviation = (0.25 / mask.numel()) ** 0.5
        assert float((~mask).double().mean()) == pytest.approx(0.5, abs=5 * deviation)
