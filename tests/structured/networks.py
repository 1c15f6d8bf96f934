"""Small networks in which it is known which channels are coupled."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests import toys

SHAPE = (3, 8, 8)


def units_of(plan, filters):
    """The units of filters, by layer name: bool [units]."""
    removed = np.zeros(len(plan.groups), dtype=bool)
    for name, indices in filters.items():
        removed[plan.filters[name][indices]] = True
    return removed


def filters_of(plan, removed):
    """The filters that units have, by layer name."""
    lost = {name: np.flatnonzero(removed[units]).tolist() for name, units in plan.filters.items()}
    return {name: indices for name, indices in lost.items() if indices}


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """A convolution `stem`, what `body` does with it, the mean over the image, a classifier.

    body: a function of (network, stem's outputs); width: the channels that it returns.
    """

    def __init__(self, body: Callable = lambda net, x: x, width: int = 8, **layers) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = body
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.classifier = nn.Linear(width, 3)

    def forward(self, x):
        return self.classifier(self.body(self, self.stem(x)).mean((2, 3)))


def second(before: Callable, **layers):
    """A convolution `second` of what `before` does with stem's outputs."""
    return Net(lambda net, x: net.second(before(net, x)).relu(), second=conv(8, 8), **layers)


def concatenated():
    """Two branches of different activation, joined; a norm over both, as in DenseNet."""

    def body(net, x):
        joined = torch.cat([x, net.one(x).relu(), functional.silu(net.two(x))], 1)
        return net.after(net.norm(joined).relu()).relu()

    layers = {"one": conv(8, 4), "two": conv(8, 6, 1), "norm": nn.BatchNorm2d(18)}
    return Net(body, 5, **layers, after=conv(18, 5))


def downsampled():
    """A residual block whose shortcut has a convolution of its own."""

    def body(net, x):
        return (net.norm(net.second(net.first(x).relu())) + net.shortcut(x)).relu()

    layers = {"first": conv(8, 4), "second": conv(4, 6), "shortcut": conv(8, 6, 1)}
    return Net(body, 6, **layers, norm=nn.BatchNorm2d(6))


def residual():
    """The outputs of stem and second are added, so they lose the same filters."""

    def body(net, x):
        return (x + net.second(net.norm(net.first(x)).relu())).relu()

    return Net(body, first=conv(8, 5, bias=False), second=conv(5, 8), norm=nn.BatchNorm2d(5))


def grouped():
    """A convolution of two groups (ResNeXt)."""

    def body(net, x):
        return net.after(net.norm(net.grouped(x)).relu()).relu()

    return Net(body, 6, grouped=conv(8, 12, groups=2), norm=nn.BatchNorm2d(12), after=conv(12, 6))


def excited():
    """Squeeze and excitation behind a depthwise convolution."""

    def body(net, x):
        x = net.norm(net.depthwise(x)).relu()
        squeezed = net.squeeze(x.mean((2, 3), keepdim=True)).relu()
        return x * functional.hardsigmoid(net.excite(squeezed))

    layers = {"depthwise": conv(8, 8, groups=8, bias=False), "norm": nn.BatchNorm2d(8)}
    return Net(body, **layers, squeeze=conv(8, 4, 1), excite=conv(4, 8, 1))


def gated():
    """A gated linear unit: the first half of the channels is multiplied with the second."""

    def body(net, x):
        value, gate = net.gate(x).chunk(2, 1)
        return value * gate.sigmoid()

    return Net(body, 6, gate=conv(8, 12))


def gated_in_one():
    """The same as one operation, which Torch-Pruning does not know."""
    return Net(lambda net, x: functional.glu(net.gate(x), 1), 6, gate=conv(8, 12))


def plain_norm():
    """A batch norm without weights shifts zeros by its mean."""
    norm = nn.BatchNorm2d(8, affine=False)
    return Net(lambda net, x: net.norm(net.second(x)), second=conv(8, 8), norm=norm)


def transposed():
    """A transposed convolution after a plain one."""

    def body(net, x):
        return net.after(net.up(net.second(x).relu()).relu()).relu()

    up = nn.ConvTranspose2d(4, 4, 2, stride=2)
    return Net(body, 6, second=conv(8, 4), up=up, after=conv(4, 6))


def flattened():
    """The classifier is not the last module, and one filter is sixteen of its inputs."""

    def answer(net, x):
        return net.head(functional.max_pool2d(net.second(net.first(x).relu()), 2).flatten(1))

    return toys.Net(answer, head=nn.Linear(5 * 16, 3), first=conv(3, 6), second=conv(6, 5))


def unrolled():
    """A convolution that is called twice: its outputs are its inputs."""
    return Net(lambda net, x: net.again(net.again(x).relu()).relu(), again=conv(8, 8))


def normed():
    """A layer norm over the channels that reach the classifier, and a free hidden layer."""

    def body(net, x):
        x = x.permute(0, 2, 3, 1)
        x = x + net.down(functional.gelu(net.up(net.norm(x))))
        return x.permute(0, 3, 1, 2)

    return Net(body, norm=nn.LayerNorm(8), up=nn.Linear(8, 12), down=nn.Linear(12, 8))


def group_normed():
    return second(lambda net, x: net.norm(x), norm=nn.GroupNorm(2, 8))


def sigmoid():
    """What a removed filter feeds is sigmoid(0) = ½ where it is masked."""
    return second(lambda net, x: x.sigmoid())


def shuffled():
    """A channel shuffle, as in ShuffleNet."""
    return second(lambda net, x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2))


def hard_coded():
    """A reshape that knows the number of channels."""
    return second(lambda net, x: x.reshape(-1, 8, 8, 8) * 2)


def scaled():
    """A parameter of the network's own acts on the channels."""
    return second(lambda net, x: x * net.scale, scale=nn.Parameter(torch.ones(8, 1, 1)))


def tied():
    """Two convolutions with the same weights."""

    def body(net, x):
        return net.after(net.third(net.second(x).relu()).relu())

    network = Net(body, second=conv(8, 8), third=conv(8, 8), after=conv(8, 8))
    network.third.weight = network.second.weight
    return network


def attending():
    """Multi-head attention over the positions, with a residual connection."""

    def body(net, x):
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + net.attention(tokens, tokens, tokens, need_weights=False)[0]
        x = tokens.transpose(1, 2).unflatten(2, (8, 8))
        return x + net.back(net.free(x).relu())

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    return Net(body, attention=attention, free=conv(8, 6), back=conv(6, 8))


class Wrapped(Net):
    """Several outputs instead of logits."""

    def forward(self, x):
        return {"out": super().forward(x)}


def single():
    """Insists on float32. Ones are multiplied with zeros: removed filters stay zero."""
    return Net(lambda net, x: x + torch.ones(8, 8, dtype=torch.float32) @ x)


REMOVABLE = [
    Net, concatenated, downsampled, residual, grouped, excited, gated, plain_norm, transposed,
    flattened, unrolled,
]  # fmt: skip
PARTLY = [
    gated_in_one, normed, group_normed, sigmoid, shuffled, hard_coded, scaled, tied, attending,
]  # fmt: skip
