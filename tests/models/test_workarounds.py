"""A fault of torch 2.15 on CPUs, and the way around it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.lib.models import workarounds
from tests import toys

ROOT = Path(__file__).resolve().parents[2]
FAULTY = (2, 15)
PROGRAM = """
import torch
from torch.nn import functional
from stages.lib.models import workarounds
from torch import nn

torch.set_num_threads(2)
layer = nn.Conv2d(8, 16, 1, 2, bias=False)
images = torch.randn(33, 8, 32, 32).contiguous(memory_format=torch.channels_last)
for safe in (True, False):
    for _ in range(50):
        if safe:
            with workarounds.strided_convolutions(layer):
                outputs = layer(images)
        else:
            outputs = layer(images)
        torch.autograd.grad(outputs.sum(), layer.weight)
    print("safe" if safe else "unsafe", flush=True)
"""


def test_with_the_way_around_a_gradient_is_not_written_past_its_end_as_it_is_without():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("safe"), done.stderr
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if "unsafe" in done.stdout:
        assert version <= FAULTY, (
            f"torch {torch.__version__} no longer writes past the gradient of a strided 1×1"
            " convolution: stages/lib/models/workarounds.py can go"
        )
        pytest.skip("this processor does not show the fault")


CALLS = {
    "module": lambda conv, images: conv(images),
    "function": lambda conv, images: functional.conv2d(
        images, conv.weight, conv.bias, conv.stride, conv.padding, groups=conv.groups
    ),
    "keywords": lambda conv, images: torch.conv2d(
        input=images, weight=conv.weight, bias=conv.bias, stride=conv.stride[0],
        padding="valid" if conv.padding == (0, 0) else conv.padding, groups=conv.groups,
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "options",
    [{"stride": 3, "bias": False}, {"stride": 2, "padding": 1}, {"stride": 2, "groups": 2}],
    ids=str,
)
def test_results_are_the_same_and_the_layer_keeps_its_attributes(call, options):
    torch.manual_seed(0)
    model = toys.Net(lambda net, images: call(net.conv, images), conv=nn.Conv2d(4, 6, 1, **options))
    images = torch.randn(4, 4, 7, 11)
    parameters = list(model.parameters())
    expected = model(images)
    gradients = torch.autograd.grad(expected.square().sum(), parameters)
    with workarounds.strided_convolutions(model):
        outputs = model(images)
    assert model.conv.stride == (options["stride"],) * 2
    assert not model.conv._forward_pre_hooks
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(torch.autograd.grad(outputs.square().sum(), parameters), gradients)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(4, 6, 1, stride=(2, 3)), (3, 2)),
        (nn.Conv2d(4, 6, 3, stride=2), (6, 6)),
        (nn.Conv2d(4, 6, 1), (6, 6)),
    ],
)
def test_the_pixels_that_are_skipped_go_first_where_there_are_any(monkeypatch, layer, size):
    conv2d = torch.conv2d

    def watched(images, *others):
        assert images.shape[2:] == size
        return conv2d(images, *others)

    monkeypatch.setattr(torch, "conv2d", watched)
    workarounds._unstrided(torch.ones(1, 4, 6, 6), layer.weight, stride=layer.stride)
