"""A pretrained head: which logit each class has, and a network with these logits alone."""

import json

import pytest
import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.evaluation import network_check
from stages.lib.models import head, registry, weights
from tests import toys
from tests.models.test_weights import plain

NAMES = ["tench", "goldfish", "great white shark", "tiger shark"]
WORDNET = ["n01440764", "n01443537", "n01484850", "n01491361"]
FILES = {
    "a list": json.dumps(NAMES),
    "logit to name": json.dumps({str(index): name for index, name in enumerate(NAMES)}),
    "name to logit": json.dumps({name: index for index, name in enumerate(NAMES)}),
    "ImageNet's": json.dumps({str(index): [WORDNET[index], NAMES[index]] for index in range(4)}),
    "a network's card": json.dumps({"id2label": {str(i): n for i, n in enumerate(NAMES)}, "x": 1}),
    "lines": "\n".join(NAMES) + "\n",
    "lines with more names": "".join(
        f"{one} {name}, fish\n" for one, name in zip(WORDNET, NAMES, strict=True)
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
@pytest.mark.parametrize("classes", [["goldfish", "Great_White-Shark"], ["tiger shark", "tench"]])
def test_each_class_has_its_logit_whatever_the_form_of_the_file(tmp_path, text, classes):
    (tmp_path / "classes").write_text(text, encoding="utf-8")
    expected = [1, 2] if "goldfish" in classes else [3, 0]
    assert head.read(tmp_path / "classes", classes) == (4, expected)


def test_wordnet_ids_are_names_too(tmp_path):
    for name in ("ImageNet's", "lines with more names"):
        (tmp_path / "classes").write_text(FILES[name])
        assert head.read(tmp_path / "classes", WORDNET[::-1]) == (4, [3, 2, 1, 0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not found; give a file's path, or none"),
        ("[", "neither JSON that maps logits"),
        ("[" * 99_999, "neither JSON that maps logits"),
        ('{"a": "b"}', "neither JSON that maps logits"),
        ('{"ant": true, "bee": 1}', "neither JSON that maps logits"),
        ("", "names no logit"),
        ('{"ant": -1, "bee": 1}', "names no logit, or one below 0"),
        ('["ant", "cow"]', "class bee is not in"),
        ('["ant", "bee", "Bee"]', "class bee may be logit 1 or 2 of"),
        ('[["ant", "bee"], "cow"]', "two classes have the same logit"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_say_it_is_refused(tmp_path, text, words):
    if text is not None:
        (tmp_path / "classes").write_text(text)
    with pytest.raises(UserError) as caught:
        head.read(tmp_path / "classes", ["ant", "bee"])
    assert str(caught.value).startswith("model.class_index: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["convnet", "resnet20", "squeezenet1_1"])
@pytest.mark.parametrize("rows", [[2, 0, 5], [6, 5, 4, 3, 2, 1, 0]])
def test_a_pretrained_head_answers_with_the_logits_of_the_classes(name, rows):
    whole, fresh = (
        registry.build(registry.architecture(name, 4, 3, count, (32, 32))).eval()
        for count in (7, len(rows))
    )
    tensors = head.tensors(fresh, len(rows), rows)
    fitted = weights.fit(fresh, plain(whole.state_dict()), len(rows), "w.pt", head=tensors)
    assert fitted.fresh == []
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(fresh(images), whole(images)[:, rows])


FACTORY = """
import torch
from torch import nn

def build(num_classes):
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, num_classes))
"""


def test_an_own_network_with_its_weights_keeps_the_logits_of_the_classes(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    name, rows = f"{tmp_path}/net.py:build", [8, 1, 4]
    whole = registry.build(registry.architecture(name, 0, 1, 9, (8, 8)))
    description = registry.architecture(name, 0, 1, 3, (8, 8), (9, rows))
    cut = registry.build(description)
    images = toys.noise(5)
    torch.testing.assert_close(cut(images), whole(images)[:, rows])
    network_check.examine(cut, (1, 8, 8), 3, "net")
    rebuilt = registry.rebuild(json.loads(json.dumps(description)), cut.state_dict())
    assert toys.same_state(rebuilt, cut)
    with pytest.raises(UserError, match="has no layer with 5 outputs"):
        head.keep_(nn.Sequential(nn.Linear(3, 4)), 5, [0])
