import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, difference
from stages.lib.models import checkpoints, prunable, registry
from stages.lib.pruning import masks
from stages.lib.structured import analysis, ranking, removal
from tests import toys

SHAPE = (1, 8, 8)
SPARSITIES = (0.1, 0.5, 0.85)
SETTINGS = [(scope, sparsity) for scope in ("layer", "global") for sparsity in SPARSITIES]
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "hidden"]


class Residual(nn.Module):
    """The outputs of `stem` and `second` are added, so they lose the same filters."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.first = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5))
        self.second = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.classifier = nn.Linear(6, 3)

    def forward(self, images):
        images = self.stem(images).relu()
        images = images + self.second(self.first(images).relu())
        return self.classifier(images.relu().mean((2, 3)))


class Depthwise(nn.Module):
    """Each filter of the depthwise convolution goes with the filter that feeds it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 1),
            nn.BatchNorm2d(8),
            nn.PReLU(8),
        )
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        return self.classifier(self.layers(images).mean((2, 3)))


class Flattened(nn.Module):
    """One filter of the convolution is sixteen inputs of the hidden layer."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.hidden = nn.Linear(6 * 16, 10)
        self.hidden_norm = nn.BatchNorm1d(10)
        self.classifier = nn.Linear(10, 3)

    def forward(self, images):
        images = nn.functional.max_pool2d(self.norm(self.convolution(images)).relu(), 2)
        return self.classifier(self.hidden_norm(self.hidden(images.flatten(1))).relu())


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet(8))


@pytest.fixture(scope="module")
def plan(model):
    return analysis.analyse(model, SHAPE)


def layer_scores(model, plan, scope):
    """Scores by layer and filter: every slot of the convnet is one filter."""
    values = ranking.scores(model, plan, scope)
    return {name: torch.tensor(values[plan.filters[name]]) for name in LAYERS}


@pytest.fixture(scope="module")
def chosen(model, plan):
    """The filters that every setting chooses."""
    return {setting: ranking.choose(model, plan, setting[1], setting[0]) for setting in SETTINGS}


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
        ((float(score), LAYERS.index(name), index) for name in scored
         for index, score in enumerate(scored[name]))
    )  # fmt: skip
    filters = {}
    for _, layer, index in order[:count]:
        filters.setdefault(LAYERS[layer], []).append(index)
    return filters


def assert_same_outputs(one, other):
    batch = toys.noise(16)
    with torch.no_grad():
        first, second = one.eval()(batch), other.eval()(batch)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_small_network_has_the_outputs_of_the_masked_one(model, plan, chosen, setting):
    filters = chosen[setting]
    masked = removal.mask(model, plan, filters)
    small = removal.remove(model, plan, filters)
    assert_same_outputs(masked, small)
    assert difference.largest(masked, small, toys.noise(16)) < 1e-5


def test_the_masked_network_differs_from_the_whole_one(model, plan, chosen):
    masked = removal.mask(model, plan, chosen["layer", 0.5])
    assert difference.largest(masked, model, toys.noise(16)) > 0.01


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_other_number_of_lowest_filters_comes_nearer(model, plan, chosen, setting):
    scope, sparsity = setting
    scored = layer_scores(model, plan, scope)
    dense = weights_left(model, {})
    assert dense == counting.prunable_weights(model)
    reached = 1 - weights_left(model, chosen[setting]) / dense
    counts = range(1, sum(map(len, scored.values())))
    candidates = [lowest(scored, count) for count in counts]
    assert chosen[setting] in [
        {name: sorted(indices) for name, indices in filters.items()} for filters in candidates
    ]
    misses = [
        abs(1 - weights_left(model, filters) / dense - sparsity)
        for filters in candidates
        if all(len(scored[name]) > len(indices) for name, indices in filters.items())
    ]
    assert abs(reached - sparsity) == pytest.approx(min(misses), abs=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
def test_sizes_are_those_of_the_filters_that_stay(model, plan, chosen, setting):
    small = removal.remove(model, plan, chosen[setting])
    assert counting.prunable_weights(small) == weights_left(model, chosen[setting])
    for name in LAYERS:
        gone = len(chosen[setting].get(name, ()))
        assert len(small.get_submodule(name).weight) == len(norms(model, name)) - gone


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_filters_with_the_lowest_norms_of_their_layer_go(model, chosen, setting):
    for name, indices in chosen[setting].items():
        values = norms(model, name)
        keep = torch.ones(len(values), dtype=torch.bool)
        keep[indices] = False
        assert values[~keep].max() < values[keep].min()


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_layer_scope_takes_the_same_share_of_every_layer(model, chosen, sparsity):
    shares = {
        name: (len(chosen["layer", sparsity].get(name, ())), len(norms(model, name)))
        for name in LAYERS
    }
    # Rounded to whole filters, each share is at most half a filter from the common one.
    least = max((count - 0.5) / size for count, size in shares.values())
    most = min((count + 0.5) / size for count, size in shares.values())
    assert least <= most + 1e-9


def test_global_scope_compares_norms_over_all_layers(model, chosen):
    relative = {name: norms(model, name) / norms(model, name).mean() for name in LAYERS}
    filters = chosen["global", 0.5]
    gone = torch.cat([relative[name][indices] for name, indices in filters.items()])
    kept = torch.cat(
        [
            values[[index for index in range(len(values)) if index not in filters.get(name, ())]]
            for name, values in relative.items()
        ]
    )
    assert gone.max() < kept.min()


def test_scores_do_not_change_with_the_scale_of_a_layer(model, plan):
    scaled = copy.deepcopy(model)
    scaled.conv3.weight.data *= 1000
    for scope in ("layer", "global"):
        before, after = layer_scores(model, plan, scope), layer_scores(scaled, plan, scope)
        for name in LAYERS:
            torch.testing.assert_close(before[name], after[name], rtol=1e-5, atol=0)


def test_the_classifier_is_never_ranked(plan):
    assert plan.refused == {"classifier": "its outputs are the classes"}


def test_an_unknown_scope_is_named(model, plan):
    with pytest.raises(ValueError, match="channel"):
        ranking.scores(model, plan, "channel")


def test_parameters_multiply_adds_and_file_fall_with_the_sparsity(model, plan, chosen):
    for scope in ("layer", "global"):
        networks = [model] + [
            removal.remove(model, plan, chosen[scope, sparsity]) for sparsity in SPARSITIES
        ]
        for measure in (
            counting.parameters,
            lambda network: counting.macs(network, SHAPE),
            checkpoints.serialized_bytes,
        ):
            values = [measure(network) for network in networks]
            assert all(after < before for before, after in pairwise(values))


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_masked_network_has_as_many_nonzero_weights_as_the_small_one_at_most(
    model, plan, chosen, setting
):
    masked = removal.mask(model, plan, chosen[setting])
    assert counting.parameters(masked) == counting.parameters(model)
    assert counting.nonzero_weights(masked) >= weights_left(model, chosen[setting])
    assert counting.nonzero_weights(masked) < counting.nonzero_weights(model)


def test_the_classes_stay(model, plan, chosen):
    for filters in chosen.values():
        small = removal.remove(model, plan, filters)
        assert small.classifier.out_features == 3
        assert torch.equal(small.classifier.bias, model.classifier.bias)


def test_what_stays_keeps_its_values(model, plan):
    small = removal.remove(model, plan, {"conv1": [0, 5], "conv2": [3]})
    rows, columns = [0, 1, 2, 4, 5, 6, 7], [1, 2, 3, 4, 6, 7]
    assert torch.equal(small.conv2.weight, model.conv2.weight[rows][:, columns])
    assert torch.equal(small.norm2.running_mean, model.norm2.running_mean[rows])
    assert torch.equal(small.norm1.bias, model.norm1.bias[columns])


@pytest.mark.parametrize("training", [True, False])
def test_the_given_network_is_not_changed(model, training):
    given = copy.deepcopy(model).train(training)
    plan = analysis.analyse(given, SHAPE)
    filters = ranking.choose(given, plan, 0.5, "global")
    removal.mask(given, plan, filters)
    removal.remove(given, plan, filters)
    assert toys.same_state(given, model)
    assert given.training is training
    assert registry.architecture_of(given) == registry.architecture_of(model)


def test_choosing_and_removing_gives_the_same_network_every_time(model, plan, chosen):
    assert ranking.choose(model, plan, 0.5, "global") == chosen["global", 0.5]
    first, second = (removal.remove(model, plan, chosen["global", 0.5]) for _ in range(2))
    assert toys.same_state(first, second)


def test_a_small_network_is_described_and_stored_like_any_other(model, plan, chosen, tmp_path):
    filters = chosen["layer", 0.5]
    small = removal.remove(model, plan, filters)
    description = registry.architecture_of(small)
    assert registry.dense_architecture(description) == registry.architecture_of(model)
    for name in LAYERS[:6]:
        left = len(norms(model, name)) - len(filters.get(name, ()))
        assert description["resized"][name]["out_channels"] == left
    path = tmp_path / "small.safetensors"
    checkpoints.save_model(small, path)
    loaded = checkpoints.load_model(path, description)
    assert toys.same_state(loaded, small)
    assert torch.equal(loaded(toys.noise(4)), small(toys.noise(4)))


def test_a_small_network_trains(model, plan, chosen):
    small = removal.remove(model, plan, chosen["global", 0.85]).train()
    nn.functional.cross_entropy(small(toys.noise(4)), torch.tensor([0, 1, 2, 0])).backward()
    for parameter in small.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape


def test_a_small_network_can_be_pruned_again(model, plan, chosen):
    small = removal.remove(model, plan, chosen["layer", 0.5])
    again = analysis.analyse(small, SHAPE)
    filters = ranking.choose(small, again, 0.5, "layer")
    masked = removal.mask(small, again, filters)
    smaller = removal.remove(small, again, filters)
    assert_same_outputs(masked, smaller)
    assert counting.parameters(smaller) < counting.parameters(small)


@pytest.mark.parametrize(
    ("network", "filters", "sizes"),
    [
        (Residual, {"stem.0": [0, 4]}, {"stem.0": 4, "first.0": 5, "second.0": 4}),
        (Residual, {"first.0": [1, 2, 3]}, {"stem.0": 6, "first.0": 2, "second.0": 6}),
        (Residual, {"second.0": [5], "first.0": [0]}, {"stem.0": 5, "first.0": 4, "second.0": 5}),
        (Depthwise, {"layers.0": [2, 3]}, {"layers.0": 4, "layers.3": 4, "layers.6": 8}),
        (Depthwise, {"layers.3": [1]}, {"layers.0": 5, "layers.3": 5, "layers.6": 8}),
        (Depthwise, {"layers.6": [1, 7]}, {"layers.0": 6, "layers.3": 6, "layers.6": 6}),
        (Residual, {"stem.0": [4], "second.0": [3]}, {"stem.0": 4, "second.0": 4}),
        (Residual, {"stem.0": [4], "second.0": [4]}, {"stem.0": 5, "second.0": 5}),
        (Depthwise, {"layers.0": [1, 3], "layers.3": [3, 4]}, {"layers.0": 3, "layers.3": 3}),
        (Flattened, {"convolution": [0, 3], "hidden": [9]}, {"convolution": 4, "hidden": 9}),
    ],
)
def test_filters_that_depend_on_each_other_go_together(network, filters, sizes):
    given = toys.lived_in(network())
    plan = analysis.analyse(given, SHAPE)
    masked = removal.mask(given, plan, filters)
    small = removal.remove(given, plan, filters)
    assert {name: len(small.get_submodule(name).weight) for name in sizes} == sizes
    assert_same_outputs(masked, small)
    assert difference.largest(masked, given, toys.noise(16)) > 1e-3


def test_removing_every_filter_by_way_of_coupled_layers_is_refused():
    filters = {"stem.0": [0, 1, 2], "second.0": [3, 4, 5]}
    given = toys.lived_in(Residual())
    plan = analysis.analyse(given, SHAPE)
    with pytest.raises(UserError, match=r"layer stem\.0 without any"):
        removal.remove(given, plan, filters)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("network", [Residual, Depthwise, Flattened])
def test_filters_are_chosen_across_layers_that_depend_on_each_other(network, scope):
    given = toys.lived_in(network())
    plan = analysis.analyse(given, SHAPE)
    filters = ranking.choose(given, plan, 0.5, scope)
    small = removal.remove(given, plan, filters)
    assert_same_outputs(removal.mask(given, plan, filters), small)
    reached = 1 - counting.prunable_weights(small) / counting.prunable_weights(given)
    assert reached == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_sparsity_that_removes_nothing_is_refused(model, plan, scope):
    with pytest.raises(UserError, match="would remove nothing at all") as caught:
        ranking.choose(model, plan, 1e-6, scope)
    assert scope in str(caught.value)
    assert "1e-06" in str(caught.value)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_sparsity_out_of_reach_is_refused_and_the_largest_named(model, plan, scope):
    with pytest.raises(UserError, match=r"cannot be reached: 0\.\d+ is the most") as caught:
        ranking.choose(model, plan, 0.9999, scope)
    assert "0.9999" in str(caught.value)
    # One filter in each layer: six convolutions, the hidden layer, three classes.
    most = 1 - (6 * 9 + 1 + 3) / counting.prunable_weights(model)
    assert f"{most:.4f}" in str(caught.value)
    filters = ranking.choose(model, plan, most - 1e-6, scope)
    small = removal.remove(model, plan, filters)
    assert [len(norms(small, name)) for name in LAYERS] == [1] * len(LAYERS)


def test_global_scope_goes_on_elsewhere_when_a_layer_is_down_to_its_last_filter(model):
    given = copy.deepcopy(model)
    given.conv3.weight.data[1:] *= 1e-3
    plan = analysis.analyse(given, SHAPE)
    filters = ranking.choose(given, plan, 0.9, "global")
    assert filters["conv3"] == list(range(1, 16))
    small = removal.remove(given, plan, filters)
    assert_same_outputs(removal.mask(given, plan, filters), small)
    assert 1 - weights_left(given, filters) / weights_left(given, {}) == pytest.approx(
        0.9, abs=0.02
    )


def test_a_network_of_one_filter_per_layer_cannot_lose_any():
    description = {
        "name": "convnet",
        "in_channels": 1,
        "channels": [1] * 6,
        "hidden": 1,
        "classes": 3,
    }
    with pytest.raises(UserError, match="no layer of the network can lose filters") as caught:
        analysis.analyse(registry.build_seeded(description, 0), SHAPE)
    assert "conv1: it has a single filter" in str(caught.value)


def test_removing_every_filter_of_a_layer_is_refused(model, plan):
    with pytest.raises(UserError, match="layer conv2 without any"):
        removal.remove(model, plan, {"conv2": list(range(8))})


def test_a_filter_of_zeros_goes_first_without_changing_the_outputs(model):
    given = copy.deepcopy(model)
    plan = analysis.analyse(given, SHAPE)
    for parameter in (given.conv4.weight, given.norm4.weight, given.norm4.bias):
        parameter.data[5] = 0
    assert int(layer_scores(given, plan, "layer")["conv4"].argmin()) == 5
    small = removal.remove(given, plan, {"conv4": [5]})
    assert_same_outputs(given, small)


def test_the_largest_difference_is_relative_to_the_largest_logit():
    one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    one.weight.data = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    other.weight.data = torch.tensor([[4.0, 0.0], [0.0, 3.0]])
    assert difference.largest(one, other, torch.eye(2)) == 0.5
    assert difference.largest(one, one, torch.eye(2)) == 0


def test_masks_of_filters_are_read_off_the_weights(model, plan):
    masked = removal.mask(model, plan, {"conv2": [1, 6]})
    keep = masks.of_zeros(masked)["conv2.weight"]
    assert [index for index in range(8) if not keep[index].any()] == [1, 6]


@pytest.mark.parametrize("multiple", [1, 2, 4, 8])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_layers_that_lose_filters_keep_a_multiple(multiple, scope):
    network = toys.lived_in(toys.convnet(width=16))
    plan = analysis.analyse(network, SHAPE)
    before = {name: one.out_channels for name, one in prunable.layers(network).items()
              if isinstance(one, nn.Conv2d)}  # fmt: skip
    for sparsity in (0.3, 0.6, 0.8):
        chosen = ranking.choose(network, plan, sparsity, scope, multiple)
        small = removal.remove(network, plan, chosen)
        for name, filters in before.items():
            left = small.get_submodule(name).out_channels
            assert left == filters or left % multiple == 0
        total = sum(weight.numel() for weight in prunable.weights(network).values())
        left = sum(weight.numel() for weight in prunable.weights(small).values())
        # One step of the widest layers is the most that the target can be missed by.
        assert abs(1 - left / total - sparsity) < 0.01 + 0.01 * multiple


def test_a_multiple_that_is_wider_than_the_layers_says_what_is_wrong():
    network = toys.convnet(width=4)
    plan = analysis.analyse(network, SHAPE)
    with pytest.raises(UserError, match="multiples of 64"):
        ranking.choose(network, plan, 0.5, "layer", 64)
