import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from stages.lib.core.errors import UserError
from stages.lib.evaluation import inference
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.training import loop
from tests import toys


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(model, recipe=None, epochs=2, learning_rate=0.05, seed=0, data=None, **others):
    return loop.fit(
        model,
        data or toys.data(),
        recipe or toys.recipe(),
        epochs=epochs,
        learning_rate=learning_rate,
        generator=generator(seed),
        **others,
    )


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.1), (0.1, 0.55), (0.2, 1.0), (0.6, 0.5), (1.0, 0.0)]
)
def test_one_cycle_of_known_points(progress, expected):
    assert loop.one_cycle(progress, 3.0) == pytest.approx(3 * expected, abs=1e-12)


def test_one_cycle_has_no_jump_and_one_peak():
    rates = [loop.one_cycle(step / 10_000, 1.0) for step in range(10_001)]
    strides = [after - before for before, after in pairwise(rates)]
    assert max(map(abs, strides)) < 1e-3
    peak = rates.index(max(rates))
    assert peak == 2000
    assert all(stride > 0 for stride in strides[:peak])
    assert all(stride < 0 for stride in strides[peak:])


@given(st.integers(1, 80), st.integers(2, 30))
@toys.few_examples
def test_batches_hold_every_index_once_and_none_is_alone(count, size):
    parts = loop.batches(count, size, generator())
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    lengths = [len(part) for part in parts]
    if count > size and count % size == 1:
        assert lengths == [size] * (count // size - 1) + [size + 1]
    else:
        assert lengths == [size] * (count // size) + [count % size] * (count % size > 0)


def test_batches_follow_the_generator():
    first, again, other = (torch.cat(loop.batches(50, 8, generator(n))) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.tolist() != list(range(50))


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.5, 0.0), (0.0, 0.1)])
def test_steps_equal_torchs_own_sgd(momentum, weight_decay):
    model, data = toys.lived_in(toys.convnet()), toys.data(train=21)
    epochs, peak = 2, 0.05
    recipe = toys.recipe(momentum=momentum, weight_decay=weight_decay)
    trained, curve = fit(model, recipe, epochs, peak, data=data)

    reference = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(
        reference.parameters(),
        lr=peak,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
    )
    order = generator()
    for epoch in range(epochs):
        losses = 0.0
        parts = loop.batches(21, recipe.batch_size, order)
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


def test_the_curve_ends_at_the_accuracy_of_the_trained_network():
    data = toys.data()
    trained, curve = fit(toys.convnet(), epochs=3, data=data)
    assert [epoch.epoch for epoch in curve] == [1, 2, 3]
    assert curve[-1].validation_accuracy == inference.accuracy(trained, data.validation)
    assert all(0 <= epoch.train_accuracy <= 1 for epoch in curve)


def test_loss_falls_and_accuracy_rises_on_separable_classes():
    data = toys.data(train=60)
    trained, curve = fit(toys.convnet(), epochs=6, learning_rate=0.1, data=data)
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert inference.accuracy(trained, data.test) > 0.9


def test_augmentation_takes_part_in_training():
    plain, _ = fit(toys.convnet(), epochs=1)
    shifted, _ = fit(toys.convnet(), toys.recipe(shift=2), epochs=1)
    assert not torch.equal(plain.conv1.weight, shifted.conv1.weight)


def test_held_weights_stay_exactly_zero_and_the_others_move():
    model = toys.lived_in(toys.convnet())
    held = masks.global_(magnitude.scores(model), 0.7)
    start = masks.masked(model, held)
    trained, _ = fit(start, masks=held)
    for name, mask in held.items():
        before, after = start.get_parameter(name), trained.get_parameter(name)
        assert not after[~mask].any()
        if mask.any():
            assert (before[mask] != after[mask]).double().mean() > 0.9


def test_weights_outside_the_masks_are_zeroed_even_where_they_were_not():
    model = toys.lived_in(toys.convnet())
    held = masks.per_layer(magnitude.scores(model), {"conv2.weight": 0.5})
    trained, _ = fit(model, epochs=1, masks=held)
    assert not trained.conv2.weight[~held["conv2.weight"]].any()


@pytest.mark.parametrize("mode", [True, False])
def test_the_given_network_is_not_changed(mode):
    model = toys.lived_in(toys.convnet()).train(mode)
    before = copy.deepcopy(model)
    trained, _ = fit(model, masks=masks.uniform(magnitude.scores(model), 0.5))
    assert toys.same_state(model, before)
    assert model.training is mode
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not toys.same_state(trained, before)


def test_a_trained_network_is_in_evaluation_mode():
    trained, _ = fit(toys.convnet(), epochs=1)
    assert not any(module.training for module in trained.modules())


def test_the_same_generator_seed_gives_the_same_network_and_another_seed_another():
    recipe = toys.recipe(shift=1, mirror=True)
    first, curve = fit(toys.convnet(), recipe, seed=3)
    torch.manual_seed(99)
    again, same_curve = fit(toys.convnet(), recipe, seed=3)
    assert toys.same_state(first, again)
    assert curve == same_curve
    other, _ = fit(toys.convnet(), recipe, seed=4)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_training_leaves_the_global_random_stream_alone():
    before = torch.get_rng_state()
    fit(toys.convnet(), toys.recipe(shift=1, mirror=True), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_huge_learning_rate_is_reported_as_divergence():
    with pytest.raises(UserError, match="step 3 of pruning") as caught:
        fit(toys.convnet(), learning_rate=1e30, label="step 3 of pruning")
    assert "lower its learning_rate" in str(caught.value)


@pytest.mark.parametrize("poison", [math.inf, math.nan])
def test_a_network_without_finite_outputs_is_reported(poison):
    model = toys.convnet()
    model.classifier.weight.data[0, 0] = poison
    with pytest.raises(UserError, match="broken: the loss is no longer a number after epoch 1"):
        fit(model, label="broken")


BFLOAT16 = {"precision": torch.bfloat16}


def test_in_bfloat16_the_weights_stay_float32_and_the_loss_falls():
    data = toys.data(train=60)
    trained, curve = fit(toys.convnet(), epochs=6, learning_rate=0.1, data=data, **BFLOAT16)
    state = trained.state_dict()
    assert {one.dtype for one in state.values() if one.is_floating_point()} == {torch.float32}
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert inference.accuracy(trained, data.test) > 0.9
    # More than bfloat16's eight bits of mantissa are in use.
    assert not torch.equal(trained.conv2.weight, trained.conv2.weight.bfloat16().float())


def test_bfloat16_comes_close_to_float32_and_is_not_the_same():
    model = toys.lived_in(toys.convnet())
    (full, full_curve), (half, half_curve) = (
        fit(model, epochs=1, learning_rate=0.01, precision=precision)
        for precision in (torch.float32, torch.bfloat16)
    )
    assert not toys.same_state(full, half)
    assert half_curve[0].train_loss == pytest.approx(full_curve[0].train_loss, rel=0.05)
    # Beside what training moved, what bfloat16 moved otherwise is small.
    start, end, other = (
        nn.utils.parameters_to_vector(network.parameters()) for network in (model, full, half)
    )
    assert (end - other).norm() < 0.2 * (end - start).norm()


def test_in_bfloat16_the_same_seed_gives_the_same_bits_and_masks_are_held():
    model = toys.lived_in(toys.convnet())
    held = masks.global_(magnitude.scores(model), 0.7)
    first, curve = fit(model, masks=held, **BFLOAT16)
    again, same_curve = fit(model, masks=held, **BFLOAT16)
    assert toys.same_state(first, again)
    assert curve == same_curve
    assert all(not first.get_parameter(name)[~mask].any() for name, mask in held.items())


class Dropping(nn.Module):
    """Half of the hidden units are dropped at random; some parameters are never used."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 16)
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(4, 4)
        self.classifier = nn.Linear(16, 3)
        self.register_parameter("scale", nn.Parameter(torch.ones(3)))

    def forward(self, images):
        return self.classifier(self.drop(self.hidden(images.flatten(1)).relu()))


def dropping():
    torch.manual_seed(0)
    return Dropping()


def test_dropout_follows_the_generators_seed_and_not_the_global_stream():
    model = dropping()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, curve = fit(model, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, same_curve = fit(model, seed=3)
    assert toys.same_state(first, again)
    assert curve == same_curve
    other, _ = fit(model, seed=4)
    assert not toys.same_state(first, other)
    plain = copy.deepcopy(model)
    plain.drop.p = 0.0
    undropped, _ = fit(plain, seed=3)
    assert not toys.same_state(first, undropped)


def test_parameters_that_the_loss_does_not_depend_on_stay_as_they_are():
    model = dropping()
    trained, _ = fit(model, toys.recipe(weight_decay=0.5))
    assert torch.equal(trained.unused.weight, model.unused.weight)
    assert torch.equal(trained.scale, model.scale)
    assert not torch.equal(trained.hidden.weight, model.hidden.weight)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_frozen_parameters_stay_as_they_are_and_frozen(precision):
    model = toys.lived_in(toys.convnet())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("conv"))
    trained, _ = fit(model, toys.recipe(weight_decay=0.5), precision=precision)
    for name, parameter in model.named_parameters():
        found = trained.get_parameter(name)
        assert found.requires_grad is parameter.requires_grad
        assert torch.equal(found, parameter) is name.startswith("conv"), name


def test_a_network_that_is_frozen_whole_is_reported():
    model = toys.convnet().requires_grad_(False)
    with pytest.raises(UserError, match="head only: the network has no parameter that requires"):
        fit(model, label="head only")
