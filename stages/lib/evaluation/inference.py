"""Samples on a device, and what a network predicts for them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stages.lib.core.prepared import Dataset, Part
from stages.lib.evaluation.images import Normalize

# Images per forward pass at 32×32 pixels and below; larger ones come in smaller batches, so that
# what a layer puts out keeps its size in memory.
BATCH = 500
PIXELS = 32 * 32
# Top-5 accuracy says little where five are a large part of all classes.
LEAST_CLASSES_FOR_TOP5 = 20
# Of a GPU's free memory, what a data set may take before it stays in the host's.
DEVICE_SHARE = 0.5


@dataclass(frozen=True)
class Samples:
    """images: uint8 [n, c, h, w]; labels: int64 [n]; both on one device, with their normalisation.

    On the CPU the images are a view of the file: what is not used is not read, and a set larger
    than memory can be trained on. They are never written to.
    """

    images: torch.Tensor
    labels: torch.Tensor
    normalize: Normalize

    @property
    def batch_size(self) -> int:
        """How many images `batches` gives at a time."""
        height, width = self.images.shape[2:]
        return max(1, min(BATCH, BATCH * PIXELS // (height * width)))

    @property
    def batch_count(self) -> int:
        """How many batches `batches` gives."""
        return -(-len(self.images) // self.batch_size)

    def batches(self) -> Iterator[torch.Tensor]:
        """The images in order, normalised, on the network's device: float32 [≤ BATCH, c, h, w]."""
        for batch in self.images.split(self.batch_size):
            yield self.normalize(batch)


@dataclass(frozen=True)
class Data:
    """The three parts of a data set on a device."""

    train: Samples
    validation: Samples
    test: Samples
    classes: list[str]
    image_shape: tuple[int, int, int]


def _tensor(array: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        # The file is mapped read-only, which torch has no notion of. Mapped for private writing
        # instead, a set larger than memory would be refused by the system.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _fits(dataset: Dataset, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    parts = (dataset.train, dataset.validation, dataset.test)
    return sum(part.images.nbytes for part in parts) <= DEVICE_SHARE * free


def on_device(dataset: Dataset, device: torch.device, normalize: Normalize | None = None) -> Data:
    """The memory-mapped arrays as tensors: mapped on a CPU, copied to a GPU where they fit there.

    normalize: other than by the training images' mean and standard deviation.
    """
    normalize = normalize or Normalize(dataset.mean, dataset.std, device)
    copy = device.type == "cuda" and _fits(dataset, device)

    def samples(part: Part) -> Samples:
        images, labels = map(_tensor, part)
        if copy:
            images, labels = images.to(device), labels.to(device)
        return Samples(images, labels, normalize)

    return Data(
        train=samples(dataset.train),
        validation=samples(dataset.validation),
        test=samples(dataset.test),
        classes=dataset.classes,
        image_shape=dataset.image_shape,
    )


def _logits(model: nn.Module, samples: Samples) -> Iterator[torch.Tensor]:
    """The logits of each batch, in order, on the network's device.

    Evaluation mode while it runs; the mode before is put back. The normalised images go to the
    device and the dtype of the network's weights.
    """
    training = model.training
    first = next(model.parameters())
    model.eval()
    with torch.inference_mode():
        for batch in samples.batches():
            yield model(batch.to(first))
    model.train(training)


def predict(model: nn.Module, samples: Samples) -> torch.Tensor:
    """The class of the largest logit for each sample: int64 [n], on the CPU."""
    return torch.cat([logits.argmax(1).cpu() for logits in _logits(model, samples)])


def predict_with_top5(model: nn.Module, samples: Samples) -> tuple[torch.Tensor, float]:
    """As `predict`, and the share of samples whose class is among the five largest logits."""
    classes, found = [], []
    for logits in _logits(model, samples):
        classes.append(logits.argmax(1).cpu())
        found.append(logits.topk(5).indices.cpu())
    return torch.cat(classes), _share_among(torch.cat(found), samples.labels)


def _share_among(found: torch.Tensor, labels: torch.Tensor) -> float:
    return float((found == labels.cpu()[:, None]).any(1).double().mean())


def top5_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of samples whose class is among the five largest of their logits [n, classes]."""
    return _share_among(logits.topk(5).indices.cpu(), labels)


def share_correct(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy, 0…1: over all samples at once, so a short last batch weighs what it is worth."""
    return float((predictions == labels.cpu()).double().mean())


def accuracy(model: nn.Module, samples: Samples) -> float:
    """Top-1 accuracy of the network, 0…1."""
    return share_correct(predict(model, samples), samples.labels)
