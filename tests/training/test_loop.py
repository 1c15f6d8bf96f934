import copy
import math
from itertools import pairwise
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from stages.lib.core.errors import UserError
from stages.lib.evaluation import inference
from stages.lib.evaluation.states import States
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.training import loop
from tests import toys


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(model, params=None, epochs=2, learning_rate=0.05, seed=0, data=None, **others):
    others |= {"epochs": epochs, "learning_rate": learning_rate, "generator": generator(seed)}
    return loop.fit(model, data or toys.data(), params or toys.training_params(), **others)


@pytest.fixture
def model():
    return toys.lived_in(toys.convnet())


@pytest.fixture
def pruned(model):
    """Masks of seven tenths of the weights."""
    return masks.global_(magnitude.scores(model), 0.7)


def test_one_cycle_has_known_points_no_jump_and_one_peak():
    known = {0.0: 0.1, 0.1: 0.55, 0.2: 1.0, 0.6: 0.5, 1.0: 0.0}
    for progress, expected in known.items():
        assert loop.one_cycle(progress, 3.0) == pytest.approx(3 * expected, abs=1e-12)
    rates = [loop.one_cycle(step / 10_000, 1.0) for step in range(10_001)]
    assert max(abs(after - before) for before, after in pairwise(rates)) < 1e-3
    assert rates[:2001] == sorted(rates[:2001])
    assert rates[2000:] == sorted(rates[2000:], reverse=True)


@given(st.integers(1, 80), st.integers(2, 30))
@toys.few_examples
def test_batches_hold_every_index_once_and_none_is_alone(count, size):
    parts = loop.batches(count, size, generator())
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    lengths = [len(part) for part in parts]
    assert all(length == size for length in lengths[:-1])
    assert lengths[-1] in range(2, size + 2) or count == 1


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.0, 0.1)])
def test_steps_equal_torchs_own_sgd(model, momentum, weight_decay):
    data = toys.data(train=21)
    epochs, peak = 2, 0.05
    params = toys.training_params(momentum=momentum, weight_decay=weight_decay)
    trained, curve = fit(model, params, epochs, peak, data=data)

    reference = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(
        reference.parameters(), peak, momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
    order = generator()
    for epoch in range(epochs):
        losses = 0.0
        parts = loop.batches(21, params.batch_size, order)
        for step, index in enumerate(parts):
            rate = loop.one_cycle((epoch + step / len(parts)) / epochs, peak)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            logits = reference(data.train.normalize(data.train.images[index]))
            loss = functional.cross_entropy(logits, data.train.labels[index])
            loss.backward()
            optimizer.step()
            losses += loss.item() * len(index)
        assert curve[epoch].learning_rate == pytest.approx(rate)
        assert curve[epoch].train_loss == pytest.approx(losses / 21, rel=1e-4)
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


PRECISIONS = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_separable_classes_are_learned_and_the_curve_says_so(precision):
    data = toys.data(train=60)
    options = {"data": data, "epochs": 6, "learning_rate": 0.1}
    trained, curve = fit(toys.convnet(), precision=precision, **options)
    assert [epoch.epoch for epoch in curve] == [1, 2, 3, 4, 5, 6]
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert all(0 <= epoch.train_accuracy <= 1 for epoch in curve)
    assert curve[-1].validation_accuracy == inference.accuracy(trained, data.validation)
    assert inference.accuracy(trained, data.test) > 0.9
    assert not any(module.training for module in trained.modules())
    # The weights stay float32: more than bfloat16's eight bits of mantissa are in use.
    assert {tensor.dtype for tensor in trained.parameters()} == {torch.float32}
    assert not torch.equal(trained.conv2.weight, trained.conv2.weight.bfloat16().float())


def test_masked_weights_stay_exactly_zero_and_the_others_move(model, pruned):
    start = masks.masked(model, pruned)
    trained, _ = fit(start, masks=pruned)
    for name, mask in pruned.items():
        before, after = start.get_parameter(name), trained.get_parameter(name)
        assert not after[~mask].any()
        if mask.any():
            assert (before[mask] != after[mask]).double().mean() > 0.9
    # Weights that were not zero before are zeroed too.
    assert toys.same_state(fit(model, masks=pruned)[0], trained)


def test_the_given_network_is_not_changed(model, pruned):
    model.train().norm3.eval()
    before = copy.deepcopy(model)
    trained, _ = fit(model, masks=pruned)
    assert toys.same_state(model, before)
    assert [module.training for module in model.modules()] == [
        module.training for module in before.modules()
    ]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not toys.same_state(trained, before)


@pytest.mark.parametrize(
    ("weight", "learning_rate"), [(0.0, 1e30), (math.inf, 0.05), (math.nan, 0.05)]
)
def test_a_loss_that_is_no_number_is_reported_with_what_to_do(weight, learning_rate):
    model = toys.convnet()
    model.classifier.weight.data[0, 0] = weight
    words = "step 3 of pruning: the loss is no longer a number after epoch [12]; lower its learning"
    with pytest.raises(UserError, match=words):
        fit(model, learning_rate=learning_rate, label="step 3 of pruning")


def test_bfloat16_comes_close_to_float32_and_is_not_the_same(model):
    (full, full_curve), (half, half_curve) = (
        fit(model, epochs=1, learning_rate=0.01, precision=precision) for precision in PRECISIONS
    )
    assert not toys.same_state(full, half)
    assert half_curve[0].train_loss == pytest.approx(full_curve[0].train_loss, rel=0.05)


def dropping():
    """Half of the hidden units are dropped at random; some parameters are never used."""
    torch.manual_seed(0)
    net = toys.Net(
        lambda net, images: net.classifier(net.drop(net.hidden(images.flatten(1)).relu())),
        hidden=nn.Linear(64, 16), drop=nn.Dropout(0.5), unused=nn.Linear(4, 4),
        classifier=nn.Linear(16, 3),
    )  # fmt: skip
    net.register_parameter("scale", nn.Parameter(torch.ones(3)))
    return net


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("build", [toys.convnet, dropping])
def test_batches_shifts_and_dropout_follow_the_generators_seed_alone(build, precision):
    model, options = build(), {"params": toys.training_params(shift=1), "precision": precision}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, curve = fit(model, seed=3, **options)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, same_curve = fit(model, seed=3, **options)
    assert toys.same_state(first, again)
    assert curve == same_curve
    plain = copy.deepcopy(model)
    if build == dropping:
        plain.drop.p = 0.0
    else:
        options["params"] = None
    for other, seed in ((model, 4), (plain, 3)):
        assert not toys.same_state(first, fit(other, seed=seed, **options)[0])


def test_parameters_that_the_loss_does_not_depend_on_stay_as_they_are():
    model = dropping()
    trained, _ = fit(model, toys.training_params(weight_decay=0.5))
    assert torch.equal(trained.unused.weight, model.unused.weight)
    assert torch.equal(trained.scale, model.scale)
    assert not torch.equal(trained.hidden.weight, model.hidden.weight)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_frozen_parameters_stay_as_they_are_and_frozen(model, precision):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("conv"))
    trained, _ = fit(model, toys.training_params(weight_decay=0.5), precision=precision)
    for name, parameter in model.named_parameters():
        found = trained.get_parameter(name)
        assert found.requires_grad is parameter.requires_grad
        assert torch.equal(found, parameter) is name.startswith("conv"), name
    with pytest.raises(UserError, match="head only: the network has no parameter that requires"):
        fit(model.requires_grad_(False), label="head only")


class Killed(BaseException):
    """Stands for a kill: nothing of the training's own code may answer to it."""


class Fickle(loop.TrainingScheme):
    """Multiplies the logits by a number that changes from step to step."""

    def __init__(self):
        self.factor = torch.ones(())

    def before_step(self, model, progress):
        self.factor = self.factor * 1.01

    def logits(self, model, inputs):
        return model(inputs) * self.factor

    def state(self):
        return {"factor": self.factor}

    def restore(self, state):
        self.factor = state["factor"]


def chain(model, folder, kill, seconds=0.0):
    """Three trainings, each from the one before, as in an arm. kill: called at every step."""
    states, scheme, curves = States(folder, seconds), Fickle(), []

    class Counted(loop.CrossEntropy):
        def __call__(self, *arguments):
            kill()
            return super().__call__(*arguments)

    for seed in range(3):
        model, curve = fit(
            model, toys.training_params(shift=1), epochs=3, seed=seed, data=toys.data(train=40),
            masks=masks.global_(magnitude.scores(model), 0.5), loss=Counted(), scheme=scheme,
            states=states,
        )  # fmt: skip
        curves += curve
    return {**model.state_dict(), "factor": scheme.factor}, curves


@pytest.mark.parametrize("network", [toys.convnet, dropping])
def test_a_training_killed_thirty_times_goes_on_bit_for_bit(tmp_path, network):
    model, random, steps = toys.lived_in(network()), Random(0), []
    whole, curves = chain(model, None, lambda: steps.append("whole"))
    count, left = len(steps), 30
    steps.clear()

    def kill():
        nonlocal left
        if left and random.random() < 0.5:
            left -= 1
            raise Killed
        steps.append("again")

    for _ in range(31):
        try:
            tensors, found = chain(model, tmp_path, kill)
            break
        except Killed:
            continue
    # It was saved before every step, so that none was taken twice.
    assert (left, len(steps)) == (0, count)
    assert found == curves
    for name, tensor in whole.items():
        assert torch.equal(tensors[name], tensor), name


def test_only_the_steps_since_the_last_state_are_taken_twice(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("stages.lib.evaluation.states.time.monotonic", lambda: clock[0])
    model, steps = toys.lived_in(toys.convnet()), []
    whole, _ = chain(model, None, lambda: steps.append(0))
    count, per_state = len(steps), 7
    steps.clear()
    limit = [20]

    def kill():
        clock[0] += 1
        if len(steps) == limit[0]:
            raise Killed
        steps.append(0)

    kills = 0
    while True:
        try:
            tensors, _ = chain(model, tmp_path, kill, seconds=per_state)
            break
        except Killed:
            kills, limit[0] = kills + 1, limit[0] + 10
    assert kills > 3
    assert count < len(steps) <= count + kills * (per_state + 1)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in whole.items())


def test_a_scheme_that_does_not_tell_its_state_saves_none(tmp_path, model):
    class Silent(loop.TrainingScheme):
        """Says nothing."""

    fit(model, scheme=Silent(), states=States(tmp_path))
    assert not list(tmp_path.iterdir())
