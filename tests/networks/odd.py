"""Ordinary networks of odd structure, each a factory for images of 3×8×8 pixels.

Plain torch runs and trains all of them. No module of the project is imported: the file stands for
what people bring. `STRUCTURES` names the factories.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils import checkpoint

STRUCTURES = []
CHANNELS = 3


def structure(factory):
    STRUCTURES.append(factory.__name__)
    return factory


class Body(nn.Module):
    """Layers by name, and what they do with the images."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def conv(inputs, outputs, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def pooled(features):
    return features.mean((2, 3))


# Arithmetic between layers.


@structure
def scaled_residual(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x).relu()
            return self.head(pooled(x + 0.5 * self.branch(x).relu()))

    return Network(stem=conv(3, 8), branch=conv(8, 8), head=nn.Linear(8, num_classes))


@structure
def hard_swish_by_hand(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.norm(self.stem(x))
            return self.head(pooled(x * functional.relu6(x + 3) / 6))

    return Network(stem=conv(3, 8), norm=nn.BatchNorm2d(8), head=nn.Linear(8, num_classes))


@structure
def padded(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(functional.pad(x, (0, 1, 0, 1))).relu()
            x = functional.pad(self.pad(x), (1, 0, 1, 0), value=0.5)
            return self.head(pooled(self.next(x).relu()))

    return Network(
        stem=nn.Conv2d(3, 8, 3, 2), pad=nn.ZeroPad2d((0, 1, 0, 1)), next=nn.Conv2d(8, 8, 3),
        head=nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def reflected(num_classes):
    return nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ReplicationPad2d(1),
        nn.Conv2d(8, 8, 3, padding_mode="zeros"), nn.ELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, num_classes),
    )  # fmt: skip


@structure
def inverted_gate(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x).relu()
            gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
            return self.head(pooled((1 - gate) * x + gate * self.other(x)))

    return Network(
        stem=conv(3, 8), gate=conv(8, 8, 1), other=conv(8, 8), head=nn.Linear(8, num_classes)
    )


@structure
def clamped_and_normalized_features(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x).clamp(-1, 4).abs().add(1e-3).sqrt()
            x = functional.normalize(pooled(x), dim=1)
            return 10 * functional.linear(x, functional.normalize(self.head.weight, dim=1))

    return Network(stem=conv(3, 8), head=nn.Linear(8, num_classes, bias=False))


# The layout of tensors in memory.


@structure
def viewed(num_classes):
    class Network(Body):
        def forward(self, x):
            x = functional.max_pool2d(self.stem(x).relu(), 4)
            return self.head(x.view(-1, 32))

    return Network(stem=conv(3, 8), head=nn.Linear(32, num_classes))


@structure
def viewed_weight(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x).relu()
            weight = self.full.weight
            x = functional.linear(x.mean((2, 3)), weight.view(8, -1).view(8, 8, 9).sum(2))
            return self.head(x)

    return Network(stem=conv(3, 8), full=conv(8, 8), head=nn.Linear(8, num_classes))


@structure
def strided_memory(num_classes):
    """Takes its patches by as_strided, which is wrong in any other layout."""

    class Network(Body):
        def forward(self, x):
            x = self.stem(x).relu()
            count, channels, height, width = x.shape
            steps = (channels * height * width, height * width, 2 * width, width, 2, 1)
            patches = x.as_strided((count, channels, 4, 2, 4, 2), steps)
            return self.head(patches.amax((3, 5)).mean((2, 3)))

    return Network(stem=conv(3, 8), head=nn.Linear(8, num_classes))


@structure
def reads_its_layout(num_classes):
    class Network(Body):
        def forward(self, x):
            features = self.stem(x)
            if not features.is_contiguous() or not self.stem.weight.is_contiguous():
                raise RuntimeError("not the layout that its kernel takes")
            return self.head(pooled(features.relu()))

    return Network(stem=conv(3, 8), head=nn.Linear(8, num_classes))


# Writing where others read.


@structure
def writes_into_its_images(num_classes):
    class Network(Body):
        def forward(self, x):
            x.add_(1).div_(2)
            return self.head(pooled(self.stem(x).relu_()))

    return Network(stem=conv(3, 8), head=nn.Linear(8, num_classes))


@structure
def keeps_its_features(num_classes):
    class Network(Body):
        def forward(self, x):
            self.features = self.stem(x).relu()
            self.seen = {"pooled": [pooled(self.features)]}
            return self.head(self.seen["pooled"][0])

    return Network(stem=conv(3, 8), head=nn.Linear(8, num_classes))


@structure
def caches_positions(num_classes):
    class Network(Body):
        positions = None

        def forward(self, x):
            x = self.stem(x).relu()
            if self.positions is None:
                self.positions = torch.linspace(-1, 1, x.shape[-1], device=x.device)
            return self.head(pooled(x * (self.scale * self.positions)))

    network = Network(stem=conv(3, 8), head=nn.Linear(8, num_classes))
    network.scale = nn.Parameter(torch.ones(8))
    return network


@structure
def notices_changes(num_classes):
    """Compares its attributes, hooks, strides and flags with those after its making."""

    class Network(Body):
        def forward(self, x):
            if self.state() != self.made:
                raise RuntimeError(f"somebody changed this network: {self.state()} {self.made}")
            return self.head(pooled(self.next(self.stem(x).relu()).relu()))

        def state(self):
            skipped = ("training", "made")
            return [
                (name, sorted(set(vars(module)) - set(skipped)), module.extra_repr(),
                 len(module._forward_hooks) + len(module._forward_pre_hooks)
                 + len(module._backward_hooks), module.__dict__.get("stride"))
                for name, module in self.named_modules()
            ] + [parameter.requires_grad for parameter in self.parameters()]  # fmt: skip

    network = Network(stem=conv(3, 8), next=conv(8, 8, 1, stride=2), head=nn.Linear(8, num_classes))
    network.stem.requires_grad_(False)
    network.made = None
    network.made = network.state()
    return network


# Parameters of every sort.


@structure
def frozen_stem(num_classes):
    network = nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip
    network[0].requires_grad_(False)
    return network


@structure
def lazy(num_classes):
    return nn.Sequential(
        nn.LazyConv2d(8, 3),
        nn.LazyBatchNorm2d(),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(num_classes),
    )


@structure
def complex_filter(num_classes):
    class Network(Body):
        def forward(self, x):
            x = torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=x.shape[-2:])
            return self.head(pooled(self.stem(x).relu()))

    network = Network(stem=conv(3, 8), head=nn.Linear(8, num_classes))
    network.filter = nn.Parameter(torch.ones(3, 8, 5, dtype=torch.complex64))
    return network


class StandardizedConv2d(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


@structure
def standardized_weights(num_classes):
    return nn.Sequential(
        StandardizedConv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), conv(8, 8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip


class ScaledLinear(nn.Linear):
    """Equalized learning rate: the weight is stored larger than it is used."""

    def forward(self, x):
        return functional.linear(x, self.weight * 0.5, self.bias)


@structure
def scaled_weights(num_classes):
    return nn.Sequential(
        conv(3, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), ScaledLinear(32, 16),
        nn.ReLU(), ScaledLinear(16, num_classes),
    )  # fmt: skip


@structure
def weight_normed(num_classes):
    return nn.Sequential(
        parametrizations.weight_norm(conv(3, 8)), nn.ReLU(), conv(8, 8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def spectrally_normed(num_classes):
    return nn.Sequential(
        conv(3, 8), nn.ReLU(), parametrizations.spectral_norm(conv(8, 8)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def masked_already(num_classes):
    """By torch.nn.utils.prune, which keeps weight_orig and weight_mask."""
    from torch.nn.utils import prune

    network = nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )  # fmt: skip
    prune.random_unstructured(network[2], "weight", 0.5)
    return network


@structure
def tied(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x).relu()
            for _ in range(2):
                x = self.same(x).relu()
            x = functional.linear(pooled(x), self.down.weight).relu()
            return self.head(functional.linear(x, self.down.weight.t()))

    network = Network(
        stem=conv(3, 8), same=conv(8, 8), down=nn.Linear(8, 4), head=nn.Linear(8, num_classes)
    )
    network.other = network.same
    return network


@structure
def own_kernels(num_classes):
    class Network(Body):
        def forward(self, x):
            x = functional.conv2d(x, self.kernel, padding=1).relu()
            x = torch.einsum("nchw,cd->ndhw", x, self.mix[0]).relu()
            return self.head(pooled(x))

    network = Network(head=nn.Linear(6, num_classes))
    network.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) / 5)
    network.mix = nn.ParameterList([torch.randn(8, 6) / 3])
    return network


@structure
def einsum_of_a_layer(num_classes):
    class Network(Body):
        def forward(self, x):
            x = torch.einsum("nchw,dc->ndhw", self.stem(x).relu(), self.mix.weight)
            return self.head(pooled(x.relu()))

    return Network(stem=conv(3, 8), mix=nn.Linear(8, 6), head=nn.Linear(6, num_classes))


@structure
def names_that_are_markers(num_classes):
    return Named(num_classes)


class Named(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.add_module("all", conv(3, 8))
        self.add_module("None", conv(8, 8))
        self.add_module("NA", nn.BatchNorm2d(8))
        self.add_module("null", nn.Linear(8, num_classes))

    def forward(self, x):
        layers = self._modules
        return layers["null"](pooled(layers["NA"](layers["None"](layers["all"](x).relu()))))


# Calls of layers.


@structure
def strided_by_function(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x).relu()
            x = functional.conv2d(x, self.p.weight, None, self.p.stride)
            return self.head(pooled(self.q(input=x.relu()).relu()))

    return Network(
        stem=conv(3, 8), p=conv(8, 8, 1, stride=2, bias=False), q=conv(8, 8, 1, stride=2),
        head=nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def data_parallel(num_classes):
    return nn.DataParallel(frozen_stem(num_classes))


def scripted(num_classes):
    return torch.jit.script(
        nn.Sequential(
            conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, 1, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
        )
    )  # fmt: skip


@structure
def checkpointed(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x)
            x = checkpoint.checkpoint(self.block, x, use_reentrant=True)
            return self.head(pooled(x))

    return Network(stem=conv(3, 8), block=nn.Sequential(nn.ReLU(), conv(8, 8), nn.ReLU()),
                   head=nn.Linear(8, num_classes))  # fmt: skip


@structure
def branches_on_data(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.stem(x).relu()
            x = self.one(x) if bool(x.mean() > 0.3) else self.other(x)
            return self.head(pooled(x))

    return Network(
        stem=conv(3, 8), one=conv(8, 8), other=conv(8, 8), head=nn.Linear(8, num_classes)
    )


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return torch.from_numpy(x.detach().cpu().numpy() ** 2).to(x)

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 2 * x * gradient


@structure
def function_in_numpy(num_classes):
    """Exporters cannot follow it."""

    class Network(Body):
        def forward(self, x):
            return self.head(pooled(Squared.apply(self.stem(x))))

    return Network(stem=conv(3, 8), head=nn.Linear(8, num_classes))


# Layers that cannot lose filters, and families.


@structure
def group_norms_alone(num_classes):
    return nn.Sequential(
        conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), conv(8, 8), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def recurrent(num_classes):
    class Network(Body):
        def forward(self, x):
            _, (state, _) = self.rows(x.transpose(1, 2).flatten(2))
            return self.head(state[-1])

    return Network(rows=nn.LSTM(24, 8, batch_first=True), head=nn.Linear(8, num_classes))


@structure
def pixel_shuffled(num_classes):
    return nn.Sequential(
        nn.PixelUnshuffle(2), conv(12, 16), nn.ReLU(), nn.PixelShuffle(2), conv(4, 8), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def attending(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
            return self.head(self.encoder(x)[:, 0])

    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    network = Network(
        patches=nn.Conv2d(3, 8, 4, 4), head=nn.Linear(8, num_classes),
        encoder=nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
    )  # fmt: skip
    network.token = nn.Parameter(torch.zeros(1, 1, 8))
    network.positions = nn.Parameter(torch.randn(1, 5, 8) / 9)
    return network


@structure
def shuffled_channels(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.grouped(self.stem(x).relu())
            x = x.view(len(x), 2, 4, 8, 8).transpose(1, 2).reshape(len(x), 8, 8, 8)
            one, other = self.depthwise(x).relu().chunk(2, 1)
            return self.head(pooled(torch.cat([one * other, one.maximum(other)], 1)))

    return Network(
        stem=conv(3, 8), grouped=conv(8, 8, 1, groups=2), depthwise=conv(8, 8, groups=8),
        head=nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def transposed(num_classes):
    return nn.Sequential(
        conv(3, 8, stride=2), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, 2), nn.PReLU(8),
        nn.Upsample(scale_factor=0.5, mode="bilinear"), conv(8, 8),
        nn.InstanceNorm2d(8, affine=True), nn.SiLU(), nn.LPPool2d(2, 4), nn.Flatten(),
        nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def norms_without_weights(num_classes):
    return nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8, affine=False), nn.LeakyReLU(), conv(8, 8),
        nn.BatchNorm2d(8, momentum=None), nn.Hardswish(), nn.LocalResponseNorm(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8), nn.Dropout(0.1),
        nn.Linear(8, num_classes),
    )  # fmt: skip


@structure
def tokens_of_pixels(num_classes):
    """No gradient reaches the images: each pixel is looked up in a table."""

    class Network(Body):
        def forward(self, x):
            levels = (x * 4 + 8).long().clamp(0, 15)
            x = self.table(levels).mean(1).permute(0, 3, 1, 2)
            return self.head(pooled(self.stem(x).relu()))

    return Network(table=nn.Embedding(16, 4), stem=conv(4, 8), head=nn.Linear(8, num_classes))


@structure
def sampled_by_a_grid(num_classes):
    class Network(Body):
        def forward(self, x):
            theta = self.locate(pooled(x)).view(-1, 2, 3) + torch.eye(2, 3).to(x)
            grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
            x = functional.grid_sample(x, grid, align_corners=False)
            return self.head(pooled(self.stem(x).relu()))

    return Network(locate=nn.Linear(3, 6), stem=conv(3, 8), head=nn.Linear(8, num_classes))


@structure
def flat_convolution(num_classes):
    class Network(Body):
        def forward(self, x):
            x = self.line(x.flatten(2)).relu()
            x, places = functional.max_pool1d(x, 4, return_indices=True)
            x = functional.max_unpool1d(x, places, 4)
            return self.head(self.both(x.mean(2), x.amax(2)).relu())

    return Network(
        line=nn.Conv1d(3, 8, 5, padding=2),
        both=nn.Bilinear(8, 8, 8),
        head=nn.Linear(8, num_classes),
    )
