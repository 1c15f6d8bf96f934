"""What a network looks like, without building it."""

import resource
import sys

import pytest
import torch

from stages.lib.core.errors import UserError
from stages.lib.models import registry, resizing, skeletons

OWN = """
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.layer = nn.Linear(in_channels, num_classes)
        self.register_buffer("steps", torch.arange(5))
        {more}

    def forward(self, images):
        return self.layer(images.mean((2, 3)))
"""
READS = "self.depth = self.layer.weight.detach().sum().item()"


def own(folder, more="pass"):
    (folder / "net.py").write_text(OWN.format(more=more), encoding="utf-8")
    return registry.architecture(f"{folder / 'net.py'}:Network", 0, 1, 3, (8, 8))


# Networks that read values while they are built, or have buffers of whole numbers, among them.
@pytest.mark.parametrize(
    "name", ["convnet", "resnet20", "regnet_x_400mf", "swin_t", "shufflenet_v2_x0_5"]
)
def test_a_skeleton_is_that_of_the_network(name):
    description = registry.architecture(name, 4, 1, 3, (32, 32))
    before = torch.get_rng_state()
    skeleton = skeletons.of(description)
    assert torch.equal(torch.get_rng_state(), before)
    model = registry.build_seeded(description, 0)
    state = model.state_dict()
    assert list(skeleton.shapes) == list(state)
    assert skeleton.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert skeleton.dtypes == {name: tensor.dtype for name, tensor in state.items()}
    assert skeleton.sizes == resizing.sizes(model)
    assert skeleton.elements == sum(tensor.numel() for tensor in state.values())


def test_an_enormous_network_takes_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    skeleton = skeletons.of(registry.architecture("convnet", 10**6, 1, 3))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert skeleton.elements > 10**14
    assert grown < 2**26 / (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("more", ["pass", READS])
def test_a_network_of_ones_own(tmp_path, more):
    """Also one that reads its weights' values while it is built, if it is of modest size."""
    description = own(tmp_path, more)
    skeleton = skeletons.of(description)
    assert skeleton.shapes == {"layer.weight": (3, 1), "layer.bias": (3,), "steps": (5,)}
    if more == READS:
        with pytest.raises(UserError, match=r"net\.py"):
            skeletons.of({**description, "classes": 10**12})


SKELETON = skeletons.Skeleton(
    {"a": (7, 2), "b": ()}, {}, {"": {}, "a": {"groups": 1, "shape": [4, 5]}, "b": {"out": 7}}
)


@pytest.mark.parametrize(
    ("resized", "shape", "numbers"),
    [
        ({}, (7, 2), [1, 4, 5, 7, 7, 2]),
        ({"b": {"out": 3}}, (7, 2), [1, 4, 5, 3, 7, 2]),
        ({"a": {"shape": [4, 2]}, "b": {"out": 6}}, (6, 2), [1, 4, 2, 6, 6, 2]),
    ],
)
def test_numbers_of_a_smaller_network_and_back(resized, shape, numbers):
    assert SKELETON.numbers(resized, [shape, ()]) == numbers
    taken = [before - after for before, after in zip([1, 4, 5, 7, 7, 2], numbers, strict=True)]
    assert SKELETON.smaller(taken) == (resized, [shape, ()])
