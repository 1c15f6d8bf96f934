"""Small networks in which the channels that are coupled are known."""

import torch
from torch import nn

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


class Residual(Net):
    """The outputs of stem and second are added, so they lose the same filters."""

    def add_layers(self):
        self.first, self.second = conv(8, 5, bias=False), conv(5, 8)
        self.norm = nn.BatchNorm2d(5)

    def body(self, x):
        return (x + self.second(self.norm(self.first(x)).relu())).relu()


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
    Net, Concatenated, Downsampled, Residual, Grouped, Excited, Gated, PlainNorm, Transposed,
    Flattened, Unrolled,
]  # fmt: skip
PARTLY = [GatedInOne, Normed, GroupNormed, Sigmoid, Shuffled, HardCoded, Scaled, Tied, Attending]
