"""What the check of a network finds, before anything is trained."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.lib.core.errors import UserError
from stages.lib.evaluation import network_check
from stages.lib.models import registry
from stages.lib.models.origins import copied
from tests import toys

SHAPE = (1, 8, 8)


def answering(answer, **layers):
    """Answers with what `answer` makes of the logits."""
    return toys.Net(
        lambda net, images: answer(net, net.fc(images.flatten(1))), fc=nn.Linear(64, 3), **layers
    )


def complaint(model, image_shape=SHAPE, classes=3):
    with pytest.raises(UserError) as caught:
        network_check.examine(model, image_shape, classes, "net.py:make")
    assert str(caught.value).startswith("model.name: net.py:make ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def notes(model):
    *found, last = network_check.examine(model, SHAPE, 3, "net.py:make")
    assert all(note.startswith("net.py:make ") and "\n" not in note for note in [*found, last])
    assert "may be pruned" in last
    return found


@pytest.mark.parametrize(
    ("answer", "got", "remedy"),
    [
        (lambda net, logits: logits[:, :2], "[4, 2]", "let the factory take num_classes"),
        (lambda net, logits: logits.sum(), "[]", "let the factory take num_classes"),
        (lambda net, logits: logits[:, :1], "[4, 1]", "two classes: one logit each"),
        (lambda net, logits: logits[:, 0], "[4]", "two classes: one logit each"),
        (lambda net, logits: (logits, logits), "a tuple", "return the logits alone"),
        (lambda net, logits: None, "a NoneType", "return the logits alone"),
    ],
)
def test_an_answer_that_is_no_logit_per_class_is_refused(answer, got, remedy):
    text = complaint(answering(answer))
    assert f"answers 4 images with {got} where a tensor [4, 3] is wanted, " in text
    assert text.endswith(remedy)


def test_auxiliary_outputs_in_training_are_refused():
    network = answering(lambda net, logits: (logits, logits) if net.training else logits)
    text = complaint(network)
    assert "answers 4 images in training with a tuple" in text
    assert text.endswith("without auxiliary outputs")


@pytest.mark.parametrize("error", [StopIteration(), KeyError("x"), ValueError("a\nb")])
def test_whatever_a_network_raises_is_told(error):
    def answer(net, logits):
        raise error

    text = complaint(answering(answer))
    assert "cannot take images of 1×8×8 (" in text
    assert text.endswith("mend its forward")
    assert complaint(answering(lambda net, logits: logits), (3, 8, 8)).endswith(
        "set data.image_size to what it needs"
    )


def test_a_network_without_parameters_is_refused_and_batch_norm_is_not():
    assert "has no parameters" in complaint(nn.Flatten())
    # Batch norm cannot train on one value per channel, as here with images of 1×1.
    network = registry.build(registry.architecture("resnet20", 4, 1, 3))
    assert len(network_check.examine(network, (1, 1, 1), 3, "resnet20")) == 1


class Odd(nn.Linear):
    def get_extra_state(self):
        return "a text"

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Flatten(), Odd(64, 3)), "do without get_extra_state"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).half(),
            r"float16.*; return it with",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double(), "float64"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3, device="meta")), "without the device meta"),
        (
            torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))),
            "return the module without torch.jit.script",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).requires_grad_(False),
            "leave some unfrozen",
        ),
        (answering(lambda net, logits: logits.detach()), "take torch.no_grad"),
        (nn.Sequential(nn.Conv2d(1, 3, 8).double().float(), nn.Flatten()), None),
        (
            nn.Sequential(nn.ConvTranspose2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            "no convolution or linear layer to prune",
        ),
    ],
)
def test_what_cannot_be_trained_or_stored_is_refused_with_its_own_remedy(network, words):
    if words is None:
        assert notes(network) == []
    else:
        assert re.search(words, complaint(network))


def counting(net, logits):
    net.calls += 1
    return logits


def drifting(net, logits):
    net.calls += 1
    return logits * net.calls


class Counter(nn.Module):
    """A network with a buffer."""

    def __init__(self, answer):
        super().__init__()
        self.fc, self.answer = nn.Linear(64, 3), answer
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        return self.answer(self, self.fc(images.flatten(1)))


def test_an_answer_that_is_not_repeatable_is_refused_with_its_cause():
    dropping = answering(lambda net, logits: functional.dropout(logits, 0.5))
    text = complaint(dropping)
    assert "differently in evaluation (it draws random numbers)" in text
    assert text.endswith("give functional.dropout training=self.training")
    text = complaint(Counter(drifting))
    assert "differently in evaluation (it changes calls)" in text
    assert text.endswith("change it only if self.training")
    # The same with nn.Dropout is no finding.
    assert notes(answering(lambda net, logits: net.drop(logits), drop=nn.Dropout(0.5))) == []


def test_state_that_moves_without_an_effect_is_a_note():
    (note,) = notes(Counter(counting))
    assert note.startswith("net.py:make changes calls in evaluation too")


def test_probabilities_are_a_note_and_their_logarithms_are_not():
    (note,) = notes(answering(lambda net, logits: logits.softmax(1)))
    assert "answers with probabilities" in note
    assert notes(answering(lambda net, logits: logits.log_softmax(1))) == []


def test_an_answer_that_depends_on_other_images_is_a_note():
    norm = nn.BatchNorm1d(3, track_running_stats=False)
    found = notes(answering(lambda net, logits: net.norm(logits), norm=norm))
    assert len(found) == 1
    assert "cannot take a single image" in found[0] or "other images" in found[0]
    (note,) = notes(answering(lambda net, logits: logits - logits.mean(0)))
    assert "answers an image differently beside other images" in note


def test_the_network_is_not_touched():
    network = Counter(lambda net, logits: counting(net, logits.add_(1)))
    network.requires_grad_(True).train()
    before = copied(network)
    made = {name: dict(vars(module)) for name, module in network.named_modules()}
    network_check.examine(network, SHAPE, 3, "net")
    assert toys.same_state(network, before)
    assert {name: dict(vars(module)) for name, module in network.named_modules()} == made
    assert all(parameter.grad is None for parameter in network.parameters())
