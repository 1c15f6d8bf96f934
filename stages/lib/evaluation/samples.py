"""Images and labels on a device."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from stages.lib.core.prepared import Dataset, Part
from stages.lib.evaluation.images import Normalize

# Images per forward pass at 32×32 pixels and below. Larger images come in smaller batches, so that
# a layer's output takes about as much memory.
BATCH = 500
PIXELS = 32 * 32
# On a CPU, so many images of this size stay in its caches from layer to layer: the ConvNet of width
# 32 takes 3,024 a second in batches of 64, and 1,439 in batches of 500 (one thread of an AMD EPYC).
# ResNet-18 takes 43 of 224×224 pixels one by one, and 64 in batches of ten.
CACHED, LEAST_CACHED = 64, 10
# The share of a GPU's free memory that a data set may take; a larger one stays on the host.
DEVICE_SHARE = 0.5


def batch_size(pixels: int, device: torch.device) -> int:
    """How many images of so many pixels to compute at a time."""
    fit = max(1, min(BATCH, BATCH * PIXELS // pixels))
    if device.type != "cpu":
        return fit
    return min(fit, max(LEAST_CACHED, CACHED * PIXELS // pixels))


@dataclass(frozen=True)
class Samples:
    """images: uint8 [n, c, h, w]; labels: int64 [n]; both on one device, with their normalization.

    On the CPU the images are a view of the file: unused images are not read, and a set larger than
    memory can be used for training. They are never written to.
    """

    images: torch.Tensor
    labels: torch.Tensor
    normalize: Normalize

    @property
    def pixels(self) -> int:
        """Of an image: height × width."""
        return self.images.shape[2] * self.images.shape[3]

    @property
    def batch_size(self) -> int:
        """The number of images that `batches` yields at a time."""
        return batch_size(self.pixels, self.normalize.scale.device)

    @property
    def batch_count(self) -> int:
        """The number of batches that `batches` yields."""
        return -(-len(self.images) // self.batch_size)

    def batches(self) -> Iterator[torch.Tensor]:
        """The images in order, normalized: float32 [≤ BATCH, c, h, w], each batch a new tensor."""
        for batch in self.images.split(self.batch_size):
            yield self.normalize(batch)


@dataclass(frozen=True)
class Data:
    """The three parts of a data set on a device. image_shape: (channels, height, width)."""

    train: Samples
    validation: Samples
    test: Samples
    classes: list[str]
    image_shape: tuple[int, int, int]


def _tensor(array: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        # The file is mapped read-only, which torch does not know. If it were mapped for private
        # writing, the system would refuse a set larger than memory.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _fits(parts: list[Part], device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return sum(part.images.nbytes for part in parts) <= DEVICE_SHARE * free


def on_device(dataset: Dataset, device: torch.device, normalize: Normalize | None = None) -> Data:
    """The arrays as tensors: memory-mapped on a CPU, copied to a GPU if they fit there.

    normalize: by default, the mean and standard deviation of the training images are used.
    """
    normalize = normalize or Normalize(dataset.mean, dataset.std, device)
    parts = [dataset.train, dataset.validation, dataset.test]
    place = device if device.type == "cuda" and _fits(parts, device) else torch.device("cpu")
    samples = [Samples(*(_tensor(array).to(place) for array in part), normalize) for part in parts]
    return Data(*samples, classes=dataset.classes, image_shape=dataset.image_shape)
