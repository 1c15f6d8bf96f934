"""Networks and data small enough for a test: width 4, 8×8 images, a few samples."""

from collections.abc import Callable, Mapping, Sequence

import torch
from hypothesis import settings
from torch import nn

from stages.lib.core.params import Training
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.samples import Data, Samples
from stages.lib.models import registry

# Two workers with two threads each on two cores wait for each other: tests take ten times longer.
torch.set_num_threads(1)

# Derandomized, so that a red test stays red; no deadline, since the first call into torch is slow.
few_examples = settings(max_examples=100, deadline=None, derandomize=True, database=None)
# Where each example builds networks.
fewer_examples = settings(few_examples, max_examples=25)


def convnet(width: int = 4, in_channels: int = 1, classes: int = 3, seed: int = 0) -> nn.Module:
    """The pipeline's network, small."""
    return registry.build_seeded(
        registry.architecture("convnet", width, in_channels, classes), seed
    )


@torch.no_grad()
def lived_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every parameter and statistic at random, as if it had been trained.

    Fresh batch norms and biases (0 and 1) would hide what is done to them.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(noise.abs() + 0.5)
        elif tensor.dim() > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(noise)
    return model.eval()


class Net(nn.Module):
    """A network of named layers. answer: what it does with itself and the images."""

    def __init__(self, answer: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.answer = answer
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer(self, images)


def noise(count: int, image_shape: Sequence[int] = (1, 8, 8), seed: int = 0) -> torch.Tensor:
    """A float batch for a network."""
    return torch.randn(count, *image_shape, generator=torch.Generator().manual_seed(seed))


def laplace(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers distributed as trained weights are: many small ones."""
    chances = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    return -chances.sign() * (1 - 2 * chances.abs()).clamp_min(1e-6).log() / 50


def samples(images: torch.Tensor, labels: torch.Tensor) -> Samples:
    """Samples whose normalisation only scales 0…255 to 0…1."""
    channels = images.shape[1]
    normalize = Normalize([0.0] * channels, [1.0] * channels, torch.device("cpu"))
    return Samples(images, labels, normalize)


def halves(count: int, seed: int = 0) -> Samples:
    """A separable set of three classes: bright above, bright below, dark; with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 40, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[labels == 0, :, :4] += 200
    images[labels == 1, :, 4:] += 200
    return samples(images, labels)


def data(train: int = 24, validation: int = 15, test: int = 12) -> Data:
    """The three parts of the separable set."""
    return Data(
        train=halves(train, seed=1),
        validation=halves(validation, seed=2),
        test=halves(test, seed=3),
        classes=["above", "below", "dark"],
        image_shape=(1, 8, 8),
    )


def training_params(**changes: float) -> Training:
    """Training params without augmentation."""
    usual = {
        "batch_size": 8,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "shift": 0,
        "mirror": False,
    }
    return Training(**{**usual, **changes})


def same_tensors(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Whether the same names have the same bits in the same dtype."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name])
        for name in first
    )


def same_state(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks hold the same bits under the same names, in the same order."""
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and same_tensors(first, second)
