"""Slots and coupled sets of small networks whose truth is known, and the law that holds in all."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, difference
from stages.lib.structured import analysis, coupling, ranking, removal
from tests import toys

SHAPE = (3, 8, 8)


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """A convolution `stem`, what `body` does with it, the mean over the image, a classifier."""

    width = 8

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.add_layers()
        self.classifier = nn.Linear(self.width, 3)

    def add_layers(self):
        """Layers between stem and classifier."""

    def body(self, x):
        return x

    def forward(self, x):
        return self.classifier(self.body(self.stem(x)).mean((2, 3)))


class Concatenated(Net):
    """Two branches of different activation, joined; a norm over both, as in DenseNet."""

    width = 5

    def add_layers(self):
        self.one, self.two = conv(8, 4), conv(8, 6, 1)
        self.norm = nn.BatchNorm2d(18)
        self.after = conv(18, 5)

    def body(self, x):
        one, two = self.one(x).relu(), nn.functional.silu(self.two(x))
        return self.after(self.norm(torch.cat([x, one, two], 1)).relu()).relu()


class Downsampled(Net):
    """A residual block whose shortcut has a convolution of its own."""

    width = 6

    def add_layers(self):
        self.first, self.second, self.shortcut = conv(8, 4), conv(4, 6), conv(8, 6, 1)
        self.norm = nn.BatchNorm2d(6)

    def body(self, x):
        return (self.norm(self.second(self.first(x).relu())) + self.shortcut(x)).relu()


class Grouped(Net):
    """A convolution of two groups (ResNeXt)."""

    width = 6

    def add_layers(self):
        self.grouped, self.norm, self.after = conv(8, 12, groups=2), nn.BatchNorm2d(12), conv(12, 6)

    def body(self, x):
        return self.after(self.norm(self.grouped(x)).relu()).relu()


class Excited(Net):
    """Squeeze and excitation behind a depthwise convolution."""

    def add_layers(self):
        self.depthwise, self.norm = conv(8, 8, groups=8, bias=False), nn.BatchNorm2d(8)
        self.squeeze, self.excite = conv(8, 4, 1), conv(4, 8, 1)

    def body(self, x):
        x = self.norm(self.depthwise(x)).relu()
        scale = self.squeeze(x.mean((2, 3), keepdim=True)).relu()
        return x * nn.functional.hardsigmoid(self.excite(scale))


class Gated(Net):
    """A gated linear unit: the first half of the channels is multiplied with the second."""

    width = 6

    def add_layers(self):
        self.gate = conv(8, 12)

    def body(self, x):
        value, gate = self.gate(x).chunk(2, 1)
        return value * gate.sigmoid()


class GatedInOne(Gated):
    """The same as one operation, which Torch-Pruning does not know."""

    def body(self, x):
        return nn.functional.glu(self.gate(x), 1)


class PlainNorm(Net):
    """A batch norm without weights shifts zeros by its mean."""

    def add_layers(self):
        self.second, self.norm = conv(8, 8), nn.BatchNorm2d(8, affine=False)

    def body(self, x):
        return self.norm(self.second(x))


class Transposed(Net):
    """A transposed convolution after a plain one."""

    width = 6

    def add_layers(self):
        self.second, self.up = conv(8, 4), nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.after = conv(4, 6)

    def body(self, x):
        return self.after(self.up(self.second(x).relu()).relu()).relu()


class Flattened(nn.Module):
    """The classifier is not the last module, and one filter is sixteen of its inputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5 * 16, 3)
        self.first = conv(3, 6)
        self.second = conv(6, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.second(self.first(x).relu()), 2)
        return self.head(x.flatten(1))


class Normed(Net):
    """A layer norm over the channels that reach the classifier, and a free hidden layer."""

    def add_layers(self):
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)

    def body(self, x):
        x = x.permute(0, 2, 3, 1)
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return x.permute(0, 3, 1, 2)


class GroupNormed(Net):
    def add_layers(self):
        self.norm, self.second = nn.GroupNorm(2, 8), conv(8, 8)

    def body(self, x):
        return self.second(self.norm(x)).relu()


class Sigmoid(Net):
    """What a removed filter feeds is sigmoid(0) = ½ where it is masked."""

    def add_layers(self):
        self.second = conv(8, 8)

    def body(self, x):
        return self.second(x.sigmoid()).relu()


class Shuffled(Net):
    """A channel shuffle, as in ShuffleNet."""

    def add_layers(self):
        self.second = conv(8, 8)

    def body(self, x):
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.second(x).relu()


class HardCoded(Net):
    """A reshape that knows the number of channels."""

    def add_layers(self):
        self.second = conv(8, 8)

    def body(self, x):
        return self.second(x.reshape(-1, 8, 8, 8) * 2).relu()


class Scaled(Net):
    """A parameter of the network's own acts on the channels."""

    def add_layers(self):
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.second = conv(8, 8)

    def body(self, x):
        return self.second(x * self.scale).relu()


class Tied(Net):
    """Two convolutions with the same weights."""

    def add_layers(self):
        self.second, self.third, self.after = conv(8, 8), conv(8, 8), conv(8, 8)
        self.third.weight = self.second.weight

    def body(self, x):
        return self.after(self.third(self.second(x).relu()).relu())


class Attending(Net):
    """Multi-head attention over the positions, with a residual connection."""

    def add_layers(self):
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.free, self.back = conv(8, 6), conv(6, 8)

    def body(self, x):
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        x = tokens.transpose(1, 2).reshape(n, c, h, w)
        return x + self.back(self.free(x).relu())


class Wrapped(Net):
    """Several outputs instead of logits."""

    def forward(self, x):
        return {"out": super().forward(x)}


class Single(Net):
    """Insists on float32."""

    def body(self, x):
        return x + torch.ones(8, 8, dtype=torch.float32) @ x.float()

    def forward(self, x):
        assert x.dtype == torch.float32
        return super().forward(x)


class Unrolled(Net):
    """A convolution that is called twice: its outputs are its inputs."""

    def add_layers(self):
        self.again = conv(8, 8)

    def body(self, x):
        return self.again(self.again(x).relu()).relu()


REMOVABLE = [
    Net, Concatenated, Downsampled, Grouped, Excited, Gated, PlainNorm, Transposed, Flattened,
    Unrolled,
]  # fmt: skip
PARTLY = [GatedInOne, Normed, GroupNormed, Sigmoid, Shuffled, HardCoded, Scaled, Tied, Attending]


def built(network):
    torch.manual_seed(0)
    return toys.lived_in(network())


PLANS = {}


def analysed(network):
    """Network and plan, made once: many tests look at them."""
    if network not in PLANS:
        model = built(network)
        PLANS[network] = model, analysis.analyse(model, SHAPE)
    return PLANS[network]


def falls_with(network, filters):
    """All filters that the named ones take with them."""
    _, plan = analysed(network)
    return removal.filters_of(plan, removal.units_of(plan, filters))


def widths(model, *names):
    return [len(model.get_submodule(name).weight) for name in names]


@pytest.mark.parametrize(
    ("network", "filters", "falling"),
    [
        (Net, {"stem.0": [2]}, {"stem.0": [2]}),
        (Concatenated, {"one": [1]}, {"one": [1]}),
        (Downsampled, {"second": [3]}, {"second": [3], "shortcut": [3]}),
        (Downsampled, {"shortcut": [0, 5]}, {"second": [0, 5], "shortcut": [0, 5]}),
        (Downsampled, {"first": [1]}, {"first": [1]}),
        (Grouped, {"grouped": [7]}, {"grouped": [1, 7]}),
        (Grouped, {"stem.0": [0]}, {"stem.0": [0, 4]}),
        (Grouped, {"after": [0]}, {"after": [0]}),
        (Excited, {"excite": [6]}, {"stem.0": [6], "depthwise": [6], "excite": [6]}),
        (Excited, {"squeeze": [3]}, {"squeeze": [3]}),
        (Gated, {"gate": [1]}, {"gate": [1, 7]}),
        (Flattened, {"second": [4]}, {"second": [4]}),
        (Transposed, {"second": [2]}, {"second": [2]}),
    ],
)
def test_known_channels_fall_together(network, filters, falling):
    assert falls_with(network, filters) == falling


@pytest.mark.parametrize(
    ("network", "layer", "others"),
    [
        (Downsampled, "second", ["shortcut"]),
        (Excited, "depthwise", ["stem.0", "excite"]),
        (Concatenated, "one", []),
        (Grouped, "grouped", []),
    ],
)
def test_coupled_layers_are_named(network, layer, others):
    assert analysed(network)[1].coupled_with(layer) == others


@pytest.mark.parametrize("network", REMOVABLE)
def test_all_but_the_classifier_can_be_removed(network):
    head = "head" if network is Flattened else "classifier"
    assert analysed(network)[1].refused == {head: coupling.CLASSES}


@pytest.mark.parametrize(
    ("network", "layers", "reason"),
    [
        (Normed, ["stem.0", "down"], "a layer norm runs over its channels"),
        (GroupNormed, ["stem.0"], "a group norm runs over its channels"),
        (GatedInOne, ["gate"], "rearranged"),
        (Sigmoid, ["stem.0"], "do not stay zero"),
        (Shuffled, ["stem.0"], "rearranged"),
        (HardCoded, ["stem.0"], "does not run without"),
        (Scaled, ["stem.0"], "the network's own parameter scale"),
        (Tied, ["stem.0", "second", "third"], "shared with another layer"),
        (Attending, ["stem.0", "attention.out_proj", "back"], "attention heads"),
    ],
)
def test_layers_that_cannot_lose_filters_are_found_and_say_why(network, layers, reason):
    refused = dict(analysed(network)[1].refused)
    assert refused.pop("classifier") == coupling.CLASSES
    assert list(refused) == sorted(layers, key=list(refused).index)
    assert all(reason in refused[layer] for layer in layers)


def test_a_hidden_layer_between_layer_norms_is_free():
    model, plan = analysed(Normed)
    small = removal.remove(model, plan, ranking.choose(model, plan, 0.3, "layer"))
    assert widths(small, "stem.0", "down") == [8, 8]
    assert small.up.out_features == small.down.in_features < 12


@settings(parent=toys.few_examples, max_examples=12)
@given(data=st.data())
@pytest.mark.parametrize("network", [*REMOVABLE, *PARTLY])
def test_without_any_filters_the_network_is_what_it_is_with_zeros(network, data):
    model, plan = analysed(network)
    free = [name for name in plan.filters if name not in plan.refused]
    wanted = {
        name: data.draw(st.lists(st.integers(1, len(plan.filters[name]) // 2 - 1), max_size=3))
        for name in free
    }  # never the first place of the first group, so that no layer is emptied
    gone = removal.units_of(plan, wanted)
    filters = removal.filters_of(plan, gone)
    masked, small = removal.mask(model, plan, filters), removal.remove(model, plan, filters)
    assert difference.largest(masked, small, toys.noise(4, SHAPE)) < 1e-9
    assert counting.parameters(masked) == counting.parameters(model)
    assert removal.weights_left(model, plan, gone) == counting.prunable_weights(small)
    for name, slots in plan.filters.items():
        assert widths(small, name) == [len(slots) - len(filters.get(name, ()))]
    for layer in small.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.out_channels % layer.groups == layer.in_channels % layer.groups == 0


@pytest.mark.parametrize("scope", ranking.SCOPES)
@pytest.mark.parametrize(
    ("network", "sparsity"),
    [(network, sparsity) for network in REMOVABLE for sparsity in (0.2, 0.4, 0.7)]
    + [(network, 0.15) for network in PARTLY],
)
def test_the_lowest_scored_go_and_no_layer_is_emptied(network, sparsity, scope):
    model, plan = analysed(network)
    filters = ranking.choose(model, plan, sparsity, scope)
    gone = removal.units_of(plan, filters)
    assert removal.filters_of(plan, gone) == filters
    small = removal.remove(model, plan, filters)
    assert all(parameter.numel() for parameter in small.parameters())
    scored = ranking.scores(model, plan, scope)
    # A slot with a lower score than one that went stays only as the last of some layer.
    for slot in np.flatnonzero(plan.allowed & ~gone & (scored < scored[gone].max())):
        without = gone.copy()
        without[slot] = True
        with pytest.raises(UserError, match="without"):
            removal.units_of(plan, removal.filters_of(plan, without))


def test_scores_are_means_over_the_coupled_layers():
    model, plan = analysed(Downsampled)
    scored = ranking.scores(model, plan, "global")
    expected = 0
    for layer in (model.second, model.shortcut):
        norms = layer.weight.detach().abs().double().sum((1, 2, 3))
        expected = expected + (norms / norms.mean()).numpy() / 2
    np.testing.assert_allclose(scored[plan.filters["second"]], expected, rtol=1e-6)
    ranked = ranking.scores(model, plan, "layer")[plan.filters["second"]]
    np.testing.assert_allclose(np.sort(ranked), (np.arange(6) + 0.5) / 6)
    assert (np.argsort(ranked) == np.argsort(expected)).all()


@pytest.mark.parametrize("network", [Shuffled, Excited])
def test_the_plan_does_not_depend_on_weights_or_mode(network):
    model, plan = analysed(network)
    other = network().requires_grad_(False).train()
    with torch.inference_mode():
        other = analysis.analyse(other, SHAPE)
    assert other.refused == plan.refused
    assert (other.groups == plan.groups).all()
    assert all((other.filters[name] == slots).all() for name, slots in plan.filters.items())
    filters = ranking.choose(model, plan, 0.4, "global")
    assert ranking.choose(model, other, 0.4, "global") == filters


def test_analysing_leaves_the_network_as_it_was(capfd, recwarn):
    model = built(Scaled).train().requires_grad_(False)
    before = copy.deepcopy(model)
    analysis.analyse(model, SHAPE)
    assert toys.same_state(model, before)
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_network_that_does_not_run_is_a_users_error():
    with pytest.raises(UserError, match=r"cannot trace the network on one image .*\(1, 8, 8\)"):
        analysis.analyse(built(Net), (1, 8, 8))


def test_a_network_of_other_outputs_is_a_users_error():
    with pytest.raises(UserError, match=r"does not return one tensor of logits \[n, classes\]"):
        analysis.analyse(built(Wrapped), SHAPE)


def test_a_network_of_one_precision_is_tried_in_that():
    model = built(Single)
    plan = analysis.analyse(model, SHAPE)
    # Ones are multiplied with zeros: the removed filters stay zero.
    assert list(plan.refused) == ["classifier"]


def test_a_layer_that_is_called_twice_loses_inputs_with_its_outputs():
    assert falls_with(Unrolled, {"stem.0": [3]}) == {"stem.0": [3], "again": [3]}


def test_a_network_without_prunable_layers_is_a_users_error():
    with pytest.raises(UserError, match="no layer of the network can lose filters"):
        analysis.analyse(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192)), SHAPE)


def test_a_refused_layer_loses_no_filters_by_name():
    model, plan = analysed(Normed)
    with pytest.raises(UserError, match="layer down cannot lose filters: a layer norm"):
        removal.mask(model, plan, {"down": [0]})
