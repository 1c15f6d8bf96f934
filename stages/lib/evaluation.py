"""Samples on a device, and what a network predicts for them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stages.lib.images import Normalize
from stages.lib.prepared import Dataset, Part

BATCH = 500


@dataclass(frozen=True)
class Samples:
    """images: uint8 [n, c, h, w]; labels: int64 [n]; both on one device, with their
    normalisation.
    """

    images: torch.Tensor
    labels: torch.Tensor
    normalize: Normalize


@dataclass(frozen=True)
class Data:
    """The three parts of a data set on a device."""

    train: Samples
    validation: Samples
    test: Samples
    classes: list[str]
    image_shape: tuple[int, int, int]


def on_device(dataset: Dataset, device: torch.device) -> Data:
    """Copies the memory-mapped arrays to the device."""
    normalize = Normalize(dataset.mean, dataset.std, device)

    def samples(part: Part) -> Samples:
        images, labels = (torch.from_numpy(np.array(array)).to(device) for array in part)
        return Samples(images, labels, normalize)

    return Data(
        train=samples(dataset.train),
        validation=samples(dataset.validation),
        test=samples(dataset.test),
        classes=dataset.classes,
        image_shape=dataset.image_shape,
    )


def predict(model: nn.Module, samples: Samples) -> torch.Tensor:
    """The class of the largest logit for each sample: int64 [n], on the CPU.

    Evaluation mode while it runs; the mode before is put back. The normalised images go to the
    device and the dtype of the network's weights.
    """
    training = model.training
    first = next(model.parameters())
    model.eval()
    with torch.inference_mode():
        parts = [
            model(samples.normalize(batch).to(first)).argmax(1).cpu()
            for batch in samples.images.split(BATCH)
        ]
    model.train(training)
    return torch.cat(parts)


def share_correct(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy, 0…1: over all samples at once, so a short last batch weighs what it is worth."""
    return float((predictions == labels.cpu()).double().mean())


def accuracy(model: nn.Module, samples: Samples) -> float:
    """Top-1 accuracy of the network, 0…1."""
    return share_correct(predict(model, samples), samples.labels)
