"""Coupled groups of small networks whose truth is known, and the law that holds in all."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, difference
from stages.lib.models import registry
from stages.lib.structured import analysis, coupling, ranking, removal
from tests import toys
from tests.structured import networks
from tests.structured.networks import SHAPE, filters_of, units_of

NARROW = registry.architecture("convnet", 4, 1, 3) | {"channels": [1] * 6, "hidden": 1}


def built(network):
    torch.manual_seed(0)
    return toys.lived_in(network())


@cache
def analysed(network):
    """Network and plan, made once: many tests look at them."""
    model = built(network)
    return model, analysis.analyse(model, SHAPE)


def widths(model, *names):
    return [len(model.get_submodule(name).weight) for name in names]


@pytest.mark.parametrize(
    ("network", "filters", "coupled"),
    [
        (networks.Net, {"stem.0": [2]}, {}),
        (networks.concatenated, {"one": [1]}, {}),
        (networks.downsampled, {"second": [3]}, {"shortcut": [3]}),
        (networks.residual, {"stem.0": [4], "second": [3]}, {"stem.0": [3, 4], "second": [3, 4]}),
        (networks.grouped, {"grouped": [7]}, {"grouped": [1, 7]}),
        (networks.grouped, {"stem.0": [0]}, {"stem.0": [0, 4]}),
        (networks.excited, {"excite": [6]}, {"stem.0": [6], "depthwise": [6]}),
        (networks.excited, {"squeeze": [3]}, {}),
        (networks.gated, {"gate": [1]}, {"gate": [1, 7]}),
        (networks.flattened, {"second": [4]}, {}),
        # A layer that is called twice loses inputs with its outputs.
        (networks.unrolled, {"stem.0": [3]}, {"again": [3]}),
    ],
)
def test_known_channels_are_coupled(network, filters, coupled):
    _, plan = analysed(network)
    assert filters_of(plan, units_of(plan, filters)) == filters | coupled


def test_coupled_layers_are_named():
    model, plan = analysed(networks.excited)
    lines = {line["layer"]: list(line.values())[1:] for line in analysis.table(model, plan)}
    assert lines["depthwise"] == [8, "stem.0 excite", "yes", ""]
    assert lines["squeeze"] == [4, "", "yes", ""]
    assert lines["classifier"] == [3, "", "no", coupling.CLASSES]


@pytest.mark.parametrize("network", [*networks.REMOVABLE, networks.single])
def test_all_but_the_classifier_can_be_removed(network):
    head = "head" if network is networks.flattened else "classifier"
    assert analysed(network)[1].refused == {head: coupling.CLASSES}


@pytest.mark.parametrize(
    ("network", "layers", "reason"),
    [
        (networks.normed, ["stem.0", "down"], "a layer norm runs over its channels"),
        (networks.group_normed, ["stem.0"], "a group norm runs over its channels"),
        (networks.gated_in_one, ["gate"], "rearranged"),
        (networks.sigmoid, ["stem.0"], "do not stay zero"),
        (networks.shuffled, ["stem.0"], "rearranged"),
        (networks.hard_coded, ["stem.0"], "does not run without"),
        (networks.scaled, ["stem.0"], "the network's own parameter scale"),
        (networks.tied, ["stem.0", "second", "third"], "shared with another layer"),
        (networks.attending, ["stem.0", "attention.out_proj", "back"], "attention heads"),
    ],
)
def test_layers_that_cannot_lose_filters_are_found_and_say_why(network, layers, reason):
    model, plan = analysed(network)
    refused = dict(plan.refused)
    assert refused.pop("classifier") == coupling.CLASSES
    assert set(refused) == set(layers)
    assert all(reason in refused[layer] for layer in layers)
    lines = {line["layer"]: line["reason"] for line in analysis.table(model, plan)}
    assert all(lines.get(layer, refused[layer]) == refused[layer] for layer in layers)


@settings(parent=toys.few_examples, max_examples=8)
@given(data=st.data())
@pytest.mark.parametrize("network", [*networks.REMOVABLE, *networks.PARTLY])
def test_without_any_filters_the_network_is_what_it_is_with_zeros(network, data):
    model, plan = analysed(network)
    wanted = {
        name: data.draw(st.lists(st.integers(1, len(units) // 2 - 1), max_size=3))
        for name, units in plan.filters.items()
        if name not in plan.refused
    }  # never the first place of the first group, so that no layer is emptied
    removed = units_of(plan, wanted)
    filters = filters_of(plan, removed)
    masked, small = removal.mask(model, plan, removed), removal.remove(model, plan, removed)
    assert difference.largest(masked, small, toys.noise(4, SHAPE)) < 1e-9
    assert counting.parameters(masked) == counting.parameters(model)
    assert removal.weights_left(model, plan, removed) == counting.prunable_weights(small)
    for name, units in plan.filters.items():
        assert widths(small, name) == [len(units) - len(filters.get(name, ()))]
    for layer in small.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.out_channels % layer.groups == layer.in_channels % layer.groups == 0


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    ("network", "sparsity"),
    [(network, sparsity) for network in networks.REMOVABLE for sparsity in (0.2, 0.7)]
    + [(network, 0.15) for network in networks.PARTLY],
)
def test_the_lowest_scored_go_and_no_layer_is_emptied(network, sparsity, scope):
    model, plan = analysed(network)
    removed = ranking.choose(model, plan, sparsity, scope)
    assert not (removed & ~plan.allowed).any()
    small = removal.remove(model, plan, removed)
    assert all(parameter.numel() for parameter in small.parameters())
    scored = ranking.scores(model, plan, scope)
    sides = [member.units for member in plan.members]
    # A unit with a lower score than one that went stays only as the last of some layer.
    for unit in np.flatnonzero(plan.allowed & ~removed & (scored < scored[removed].max())):
        without = removed.copy()
        without[unit] = True
        assert any((units >= 0).all() and without[units].all() for units in sides)


def test_scores_are_means_over_the_coupled_layers():
    model, plan = analysed(networks.downsampled)
    scored = ranking.scores(model, plan, "global")
    expected = 0
    for layer in (model.second, model.shortcut):
        norms = layer.weight.detach().abs().double().sum((1, 2, 3))
        expected = expected + (norms / norms.mean()).numpy() / 2
    np.testing.assert_allclose(scored[plan.filters["second"]], expected, rtol=1e-6)
    ranked = ranking.scores(model, plan, "layer")[plan.filters["second"]]
    np.testing.assert_allclose(np.sort(ranked), (np.arange(6) + 0.5) / 6)
    assert (np.argsort(ranked) == np.argsort(expected)).all()


@pytest.mark.parametrize("network", [networks.shuffled, networks.excited])
def test_the_plan_does_not_depend_on_weights_or_mode(network):
    model, plan = analysed(network)
    other = network().requires_grad_(False).train()
    with torch.inference_mode():
        other = analysis.analyse(other, SHAPE)
    assert other.refused == plan.refused
    assert (other.groups == plan.groups).all()
    assert all((other.filters[name] == units).all() for name, units in plan.filters.items())
    removed = ranking.choose(model, plan, 0.4, "global")
    assert (ranking.choose(model, other, 0.4, "global") == removed).all()


def test_analysing_leaves_the_network_as_it_was(capfd, recwarn):
    model = built(networks.scaled).train().requires_grad_(False)
    before = copy.deepcopy(model)
    analysis.analyse(model, SHAPE)
    assert toys.same_state(model, before)
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("build", "shape", "problem"),
    [
        (networks.Net, (1, 8, 8), r"cannot trace the network on one image .*\(1, 8, 8\)"),
        (networks.Wrapped, SHAPE, r"does not return one tensor of logits \[n, classes\]"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192)),
            SHAPE,
            "no layer of the network can lose filters",
        ),
        (
            lambda: registry.build_seeded(NARROW, 0),
            (1, 8, 8),
            "no layer of the network can lose filters .*conv1: it has a single filter",
        ),
    ],
)
def test_a_network_that_cannot_be_pruned_is_a_users_error(build, shape, problem):
    with pytest.raises(UserError, match=problem):
        analysis.analyse(built(build), shape)
