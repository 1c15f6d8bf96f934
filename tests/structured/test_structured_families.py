"""Structured pruning of torchvision's families: each is pruned, or says what it cannot lose."""

import re
from collections import Counter

import pytest
import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, difference
from stages.lib.models import prunable
from stages.lib.structured import analysis, coupling, ranking, removal
from tests import families, toys

NAMES = [
    pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in families.FAMILIES
]  # one worker analyses a family, once


@pytest.fixture(scope="module")
def analysed():
    """The family last asked for, and its plan: tests of one family follow each other."""
    last = {}

    def of(name):
        if name not in last:
            last.clear()
            model = families.build(name)
            last[name] = model, analysis.analyse(model, families.shape(name))
        return last[name]

    return of


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


def test_what_is_refused_is_known(analysed, name):
    refused = dict(analysed(name)[1].refused)
    heads = [layer for layer, reason in refused.items() if reason == coupling.CLASSES]
    assert len(heads) == 1
    del refused[heads[0]]
    words = families.FAMILIES[name].refused
    found = Counter(
        next((word for word in words if word in reason), reason) for reason in refused.values()
    )
    assert found == words


@pytest.mark.parametrize(("scope", "sparsity"), [("layer", 0.5), ("global", 0.3)])
def test_the_small_network_computes_what_the_masked_one_does(analysed, name, scope, sparsity):
    model, plan = analysed(name)
    chosen = ranking.choose(model, plan, sparsity, scope)
    masked, small = removal.mask(model, plan, chosen), removal.remove(model, plan, chosen)
    batch = toys.noise(2, families.shape(name))
    assert difference.largest(masked, small, batch) < 1e-9
    assert difference.largest(masked, model, batch) > 1e-3

    before, after = counting.prunable_weights(model), counting.prunable_weights(small)
    assert 1 - after / before == pytest.approx(sparsity, abs=0.005)
    assert removal.weights_left(model, plan, removal.units_of(plan, chosen)) == after
    assert counting.parameters(small) < counting.parameters(model)
    for layer, kept in prunable.weights(small).items():
        assert kept.numel(), layer
    for layer in small.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.in_channels % layer.groups == layer.out_channels % layer.groups == 0
            assert layer.weight.shape[:2] == (
                layer.out_channels,
                layer.in_channels // layer.groups,
            )

    logits = small.train()(batch)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert logits.shape == (2, 3)
    gradients = [parameter.grad for parameter in small.parameters() if parameter.grad is not None]
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_sparsity_out_of_reach_names_the_largest(analysed, name):
    with pytest.raises(UserError, match=r"cannot be reached: [\d.]+ is the most") as caught:
        ranking.choose(*analysed(name), 0.99999, "layer")
    most = float(re.search(r": ([\d.]+) is the most", str(caught.value))[1])
    # Where nothing is refused, one filter (of each group) stays in each layer.
    largest = families.FAMILIES[name].largest
    assert most == pytest.approx(largest, abs=1e-4 if largest < 1 else 0.03)
