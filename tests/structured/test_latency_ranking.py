"""Filters by the loss they cost per microsecond they save."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from stages.lib.core import outputs, records
from stages.lib.core.errors import UserError
from stages.lib.engines import layer_latency
from stages.lib.engines.onnx_runtime import onnxruntime
from stages.lib.evaluation import difference
from stages.lib.models import prunable, registry
from stages.lib.structured import analysis, latency_ranking, removal, taylor
from tests import toys

SHAPE = (1, 8, 8)
SPARSITIES = (0.3, 0.6, 0.8)


def widths(layer):
    weight = layer.weight
    return weight.shape[1] * getattr(layer, "groups", 1), weight.shape[0]


def a_table(model, cost, multiple=1):
    """The table of a machine on which a layer takes cost(name, inputs, outputs) microseconds."""
    lines = {}
    for name, layer in prunable.layers(model).items():
        sides = [range(full + 1) for full in widths(layer)]
        lines[name] = {pair: cost(name, *pair) for pair in itertools.product(*sides)}
    return {name: latency_ranking._grid(pairs) for name, pairs in lines.items()}


def left(model, plan, removed):
    small = removal.remove(model, plan, removed)
    return {name: widths(layer)[1] for name, layer in prunable.layers(small).items()}


def chosen(model, plan, sparsity, multiple, losses, cost):
    return latency_ranking.choose(model, plan, sparsity, multiple, losses, a_table(model, cost))


def macs(name, inputs, outputs):
    return inputs * outputs / 10


def equal(plan):
    return np.ones(len(plan.groups))


@pytest.mark.parametrize("multiple", [1, 2, 4])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_sparsity_and_the_multiple_are_kept_and_the_network_is_the_masked_one(
    model, plan, sparsity, multiple
):
    losses = np.random.default_rng(3).random(len(plan.groups))
    removed = chosen(model, plan, sparsity, multiple, losses, macs)
    assert np.array_equal(removed, chosen(model, plan, sparsity, multiple, losses, macs))
    assert all(count % multiple == 0 for name, count in left(model, plan, removed).items()
               if name != "classifier")  # fmt: skip
    whole = sum(weight.numel() for weight in prunable.weights(model).values())
    reached = 1 - removal.weights_left(model, plan, removed) / whole
    assert reached == pytest.approx(sparsity, abs=0.05 * multiple)
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    small = removal.remove(model, plan, removed)
    assert difference.largest(removal.mask(model, plan, removed), small, images) < 1e-4


def test_of_equal_losses_the_filters_of_the_slow_layer_go(model, plan):
    def cost(name, inputs, outputs):
        return 100 * outputs if name == "conv3" else 1e-3 * outputs

    counts = left(model, plan, chosen(model, plan, 0.05, 1, equal(plan), cost))
    full = {name: widths(layer)[1] for name, layer in prunable.layers(model).items()}
    assert {name for name in full if counts[name] < full[name]} == {"conv3"}


def test_of_equal_savings_the_least_losses_go(model, plan):
    group = plan.group_of("conv4")
    losses = np.where(plan.groups == group, 1e-6, 1.0)
    counts = left(model, plan, chosen(model, plan, 0.05, 1, losses, lambda *_: 0.0))
    full = {name: widths(layer)[1] for name, layer in prunable.layers(model).items()}
    assert {name for name in full if counts[name] < full[name]} == {"conv4"}


def test_a_kernel_that_computes_blocks_of_channels_is_pruned_by_blocks(model, plan):
    """Layers take as long as the next block of 8 filters. Nothing between blocks is worth it."""

    def cost(name, inputs, outputs):
        return 10.0 * -(-outputs // 8)

    counts = left(model, plan, chosen(model, plan, 0.3, 1, equal(plan), cost))
    full = {name: widths(layer)[1] for name, layer in prunable.layers(model).items()}
    lost = [name for name in full if counts[name] < full[name]]
    assert lost
    assert all(counts[name] % 8 == 0 for name in lost)


def test_a_sparsity_that_cannot_be_reached_says_the_most(model, plan):
    with pytest.raises(UserError, match=r"scope latency and .* multiples of 4 cannot be reached: "):
        chosen(model, plan, 0.9999, 4, equal(plan), macs)


def test_refused_units_stay_and_another_model_of_the_same_shape_is_not_needed(model, plan):
    group = plan.group_of("conv2")
    careful = dataclasses.replace(plan, refusals={**plan.refusals, group: "a reason"})
    removed = chosen(model, careful, 0.6, 1, equal(plan), macs)
    assert not removed[careful.groups == group].any()


# The table.


def test_a_table_is_read_as_it_was_written_and_between_its_widths_interpolated(tmp_path):
    file = tmp_path / "rows.csv"
    pairs = {(4, 8): 10.0, (4, 16): 20.0, (8, 8): 30.0, (8, 16): 60.0}
    lines = [dict(zip(records.LAYER_LATENCY, ("a", *pair, time), strict=True))
             for pair, time in pairs.items()]  # fmt: skip
    depth = [dict(zip(records.LAYER_LATENCY, ("b", width, width, float(width)), strict=True))
             for width in (4, 8, 16)]  # fmt: skip
    outputs.write_csv(file, records.LAYER_LATENCY, lines + depth)
    table = latency_ranking.read(file)
    assert {pair: table["a"].at(*pair) for pair in pairs} == pairs
    assert table["a"].at(6, 12) == pytest.approx(30)
    assert table["a"].at(2, 4) == 10
    assert table["b"].at(6, 6) == 6
    file.write_text("layer,inputs\na,x\n", encoding="utf-8")
    with pytest.raises(UserError, match="not a table of layers; delete it"):
        latency_ranking.read(file)


@pytest.mark.parametrize("name", ["convnet", "mobilenet_v2"])
def test_each_layer_is_measured_at_full_and_at_smaller_widths(name, monkeypatch):
    monkeypatch.setattr(layer_latency, "SECONDS", 1e-5)
    monkeypatch.setattr(layer_latency, "SHARES", (0.5, 1.0))
    shape = (3, 32, 32)
    network = registry.build_seeded(registry.architecture(name, 4, 3, 3, shape[1:]), 0)
    lines = list(layer_latency.table(network, shape, 4))
    assert all(line["microseconds"] > 0 for line in lines)
    known = {(line["layer"], line["inputs"], line["outputs"]) for line in lines}
    for layer_name, layer in prunable.layers(network).items():
        assert (layer_name, *widths(layer)) in known


@pytest.mark.parametrize(
    ("layer", "space"),
    [
        (nn.Conv2d(8, 12, 3, stride=2, padding=1), (7, 9)),
        (nn.Conv2d(8, 8, 3, padding="same", groups=8), (6, 6)),
        (nn.Conv2d(8, 12, (1, 3), padding=(0, 2), dilation=(1, 2), groups=2), (6, 6)),
        (nn.Linear(8, 12), ()),
    ],
)
def test_what_is_timed_has_the_layers_own_size(layer, space):
    images = torch.zeros(1, 8, *space)
    network = nn.Sequential(layer)
    (shape,) = layer_latency.shapes(network, images.shape[1:]).values()
    made = layer_latency.model(shape, 8, layer.weight.shape[0])
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    given = np.zeros(session.get_inputs()[0].shape, np.uint8)
    answer = session.run(None, {"images": given})[0]
    wanted = layer(images)
    axes = range(2, wanted.dim())
    assert answer.shape == tuple(wanted.permute(0, *axes, 1).shape if space else wanted.shape)


# The losses.


def test_a_unit_that_nothing_depends_on_costs_nothing_and_an_important_one_the_most(model, plan):
    network = toys.lived_in(toys.convnet(8))
    data = toys.halves(60)
    silent = int(plan.filters["conv3"][0])
    alone = np.isin(np.arange(len(plan.groups)), [silent])
    without = removal.mask(network, plan, alone)
    generator = torch.Generator
    losses = taylor.losses(without, plan, data, generator().manual_seed(0))
    assert losses[silent] == 0
    assert (losses >= 0).all()
    assert losses[plan.filters["conv3"]].max() > 0
    again = taylor.losses(without, plan, data, generator().manual_seed(0))
    assert np.array_equal(losses, again)


def test_the_estimate_is_the_gradient_along_the_mask():
    """A network that is linear in its units, with the loss's slope known: the estimate is the
    squared change of the loss if the unit's parameters shrink, to first order.
    """
    network = toys.lived_in(toys.convnet(4))
    plan = analysis.analyse(network, SHAPE)
    data = toys.halves(taylor.BATCH)
    losses = taylor.losses(network, plan, data, torch.Generator().manual_seed(0))
    unit, step = int(plan.filters["conv4"][1]), 1e-3
    masked = removal.mask(network, plan, np.isin(np.arange(len(plan.groups)), [unit]))
    whole, gone = dict(network.named_parameters()), dict(masked.named_parameters())

    def loss(share):
        shrunk = toys.lived_in(toys.convnet(4)).double().eval()
        for name, parameter in shrunk.named_parameters():
            before = whole[name].detach().double()
            parameter.data = before + share * (gone[name].detach().double() - before)
        logits = shrunk(data.normalize(data.images).double()).detach()
        return float(nn.functional.cross_entropy(logits, data.labels))

    slope = (loss(step) - loss(-step)) / (2 * step)
    assert losses[unit] == pytest.approx(abs(slope), rel=0.02, abs=1e-9)
