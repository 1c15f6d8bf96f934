"""Evaluating one changed weight at a time: whole passes' results, bit for bit, for less work."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.lib.evaluation import device, inference, replay
from stages.lib.evaluation import samples as batches
from stages.lib.models import prunable
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from tests import toys


class Chain(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3),
            nn.ReLU(), nn.Flatten(), nn.Linear(180, 3),
        )  # fmt: skip


class Residual(nn.Module):
    """Writes into the output of a module that ran long before, and into its own input."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(4, 3)

    def forward(self, images):
        images -= 0.1
        shortcut = self.relu(self.stem(images))
        out = self.second(self.relu(self.first(shortcut)))
        shortcut += out
        out += shortcut
        return self.classifier(self.relu(out).mean((2, 3)))


class Identity(nn.Module):
    """Views and unchanged inputs that are written into later."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 8)
        self.same = nn.Identity()
        self.flat = nn.Flatten()
        self.second = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        hidden = self.first(self.flat(images))
        same = self.same(hidden)
        hidden.add_(self.second(same))
        return self.classifier(self.flat(hidden.view(-1, 2, 4)) * same)


class Twice(nn.Module):
    """One module is called twice, around another one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 8)
        self.shared = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.between = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        hidden = self.shared(self.stem(images.flatten(1)))
        return self.classifier(self.shared(self.between(hidden)))


class Functional(nn.Module):
    """Weights are used without calling the module that owns them, inside one that is called."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, hidden):
            return functional.linear(hidden, self.fc.weight).tanh()

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 8)
        self.inner = self.Inner()
        self.uncalled = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        hidden = self.inner(self.stem(images.flatten(1)))
        return self.classifier(functional.linear(hidden, self.uncalled.weight))


class Early(nn.Module):
    """A weight is used before the only call of the module that owns it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8, bias=False)
        self.stem = nn.Linear(64, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        hidden = functional.linear(self.stem(images.flatten(1)), self.fc.weight)
        return self.classifier(self.fc(hidden.tanh()))


class Tied(nn.Module):
    """Two layers share one weight; the network itself owns one as well."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 8)
        self.first = nn.Linear(8, 8)
        self.between = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.between_weight = self.between.weight
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        hidden = functional.linear(self.stem(images.flatten(1)), self.between_weight)
        hidden = self.between(self.first(hidden).tanh())
        return self.classifier(self.second(hidden).tanh())


class Attention(nn.Module):
    """Modules that return tuples, with a None among them, and lists."""

    class Split(nn.Module):
        def forward(self, tokens):
            return tokens[:, :4], None, tokens[:, 4:]

    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, tokens):
            return [self.one(tokens), {"other": self.other(tokens)}]

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.split = self.Split()
        self.several = self.Several()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        tokens = self.embed(images.flatten(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        first, _, second = self.split(tokens)
        first += second
        one, others = self.several(first)
        return self.classifier(self.layer(one * others["other"]).mean(1))


class Branching(nn.Module):
    """Which layers are called, and how often, depends on the values."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 8)
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, images):
        hidden = self.stem(images.flatten(1))
        hidden = (self.left if hidden.mean() > 0 else self.right)(hidden)
        while hidden.abs().mean() > 0.3:
            hidden = self.again(hidden) * 0.4
        return self.classifier(hidden)


NETWORKS = [Chain, Residual, Identity, Twice, Functional, Early, Tied, Attention, Branching]


def build(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return toys.lived_in(network())


def variants(model: nn.Module) -> dict[str, list[torch.Tensor]]:
    """For each weight: keep all, then less and less."""
    return {
        name: [masks.keep_largest(score, share) for share in (0.0, 0.5, 0.9)]
        for name, score in magnitude.scores(model).items()
    }


def logits_of(monkeypatch):
    """Lets `argmax(1)` pass the logits on, so that predictions are compared bit for bit."""
    monkeypatch.setattr(torch.Tensor, "argmax", lambda logits, _: logits)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_predictions_are_those_of_each_masked_network_bit_for_bit(
    monkeypatch, network, channels_last
):
    monkeypatch.setattr(batches, "BATCH", 7)
    logits_of(monkeypatch)
    model, samples = build(network), toys.halves(17)
    if channels_last:
        device.place(model, torch.device("cpu"))
    found = replay.predict_masked(model, samples, variants(model))
    assert list(found) == list(prunable.weights(model))
    for name, kept in variants(model).items():
        for mask, logits in zip(kept, found[name], strict=True):
            expected = inference.predict(masks.masked(model, {name: mask}), samples)
            assert torch.equal(logits, expected), name


def test_masks_matter_in_the_networks_above():
    for network in NETWORKS:
        model, samples = build(network), toys.halves(17)
        batch = next(samples.batches())
        for name, kept in variants(model).items():
            if network is Branching and name.startswith(("left", "right", "again")):
                continue
            masked = masks.masked(model, {name: kept[-1]})
            with torch.no_grad():
                assert not torch.equal(masked(batch.clone()), model(batch.clone())), name


def test_what_is_found_is_the_class_of_each_sample():
    model, samples = build(Chain), toys.halves(9)
    found = replay.predict_masked(model, samples, {"0.weight": variants(model)["0.weight"]})
    assert list(found) == ["0.weight"]
    assert [one.dtype for one in found["0.weight"]] == [torch.int64] * 3
    assert torch.equal(found["0.weight"][0], inference.predict(model, samples))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(network, training):
    model, untouched = build(network).train(training), build(network)
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    replay.predict_masked(model, toys.halves(6), variants(model))
    assert toys.same_state(model, untouched)
    assert pointers == [parameter.data_ptr() for parameter in model.parameters()]
    for module in model.modules():
        assert module.training is training
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_forward_that_the_network_set_itself_is_used_and_comes_back():
    model = build(Chain)

    def doubled(images):
        return 2 * nn.ReLU.forward(model[2], images)

    model[2].forward = doubled
    samples, kept = toys.halves(6), variants(model)
    found = replay.predict_masked(model, samples, kept)
    assert model[2].forward is doubled
    expected = inference.predict(masks.masked(model, {"3.weight": kept["3.weight"][1]}), samples)
    assert torch.equal(found["3.weight"][1], expected)


def test_a_failure_leaves_the_network_as_it_was():
    class Failing(nn.Linear):
        calls = 0

        def forward(self, hidden):
            Failing.calls += 1
            if Failing.calls > 2:
                raise RuntimeError("out of memory")
            return super().forward(hidden)

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Failing(8, 3)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="out of memory"):
        replay.predict_masked(model, toys.halves(6), variants(model))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())


class Counting(nn.Conv2d):
    """Counts the batches that it convolves."""

    computed = 0

    def forward(self, images):
        Counting.computed += 1
        return super().forward(images)


@pytest.mark.parametrize("count", [3, 30])
def test_what_comes_before_a_weight_is_computed_at_most_twice_a_batch(monkeypatch, count):
    monkeypatch.setattr(batches, "BATCH", 5)
    model = build(Residual)
    model.stem.__class__ = Counting
    monkeypatch.setattr(Counting, "computed", 0)
    score = magnitude.scores(model)["second.weight"]
    kept = {"second.weight": [masks.keep_largest(score, index / 40) for index in range(count)]}
    replay.predict_masked(model, toys.halves(20), kept)
    # Once more in the first batch, where whole passes check that nothing is missed.
    assert Counting.computed <= 2 * 4 + 1


def test_without_masks_nothing_is_found():
    assert replay.predict_masked(build(Chain), toys.halves(6), {}) == {}
