"""Knowledge distillation: the loss, and a teacher that sees what the student saw."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.lib.training import loop
from stages.lib.training.distillation import Distillation
from tests import toys


def test_losses_of_known_extremes():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
    labels = torch.tensor([0, 2])
    same = nn.Identity()
    assert float(Distillation(same, 1.0, 4.0)(logits, labels, logits)) == pytest.approx(0, abs=1e-6)
    label_loss = Distillation(same, 0.0, 4.0)(logits, labels, -logits)
    assert float(label_loss) == pytest.approx(float(functional.cross_entropy(logits, labels)))
    other = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    divergence = sum(
        float((p * (p.log() - q.log())).sum())
        for p, q in zip((other / 4).softmax(1), (logits / 4).softmax(1), strict=True)
    )
    loss = Distillation(same, 1.0, 4.0)(logits, labels, other)
    assert float(loss) == pytest.approx(16 * divergence / 2, rel=1e-5)


def reading(net, images):
    return net.network((images + 1) / 2)


def writing(net, images):
    return net.network(images.add_(1).div_(2))


@pytest.mark.parametrize(
    ("student", "teacher"), [(reading, writing), (writing, reading), (writing, writing)]
)
def test_networks_that_write_into_their_images_learn_as_those_that_do_not(student, teacher):
    def trained(student, teacher):
        return loop.fit(
            toys.Net(student, network=toys.lived_in(toys.convnet(), seed=1)),
            toys.data(),
            toys.training_params(),
            epochs=2,
            learning_rate=0.05,
            generator=torch.Generator(),
            loss=Distillation(toys.Net(teacher, network=toys.lived_in(toys.convnet())), 0.5, 4.0),
        )

    (network, curve), (expected, same_curve) = trained(student, teacher), trained(reading, reading)
    assert toys.same_state(network, expected)
    assert curve == same_curve


def test_the_teacher_is_left_as_it_was():
    teacher = toys.lived_in(toys.convnet()).train()
    before = copy.deepcopy(teacher)
    loss = Distillation(teacher, 0.5, 4.0)
    loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), toys.noise(4))
    assert teacher.training
    assert toys.same_state(teacher, before)
