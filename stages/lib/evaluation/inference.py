"""What a network predicts for samples, and how often it is right."""

from collections.abc import Iterator

import torch
from torch import nn

from stages.lib.evaluation.samples import Samples
from stages.lib.models.modes import evaluating

# Top-5 accuracy says little where five are a large part of all classes.
LEAST_CLASSES_FOR_TOP5 = 20


@torch.inference_mode()
def _logits(model: nn.Module, samples: Samples) -> Iterator[torch.Tensor]:
    """The logits of each batch, in order. The images go to the device and the dtype of the
    network's weights.
    """
    first = next(model.parameters())
    with evaluating(model):
        for batch in samples.batches():
            yield model(batch.to(first))


def predict(model: nn.Module, samples: Samples) -> torch.Tensor:
    """The class of the largest logit for each sample: int64 [n], on the CPU."""
    return torch.cat([logits.argmax(1).cpu() for logits in _logits(model, samples)])


def predict_with_top5(model: nn.Module, samples: Samples) -> tuple[torch.Tensor, float]:
    """As `predict`, and the share of samples whose class is among the five largest logits."""
    classes, largest = [], []
    for logits in _logits(model, samples):
        classes.append(logits.argmax(1).cpu())
        largest.append(logits.topk(5).indices.cpu())
    return torch.cat(classes), _share_among(torch.cat(largest), samples.labels)


def _share_among(classes: torch.Tensor, labels: torch.Tensor) -> float:
    return float((classes == labels.cpu()[:, None]).any(1).double().mean())


def top5_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of samples whose class is among the five largest of their logits [n, classes]."""
    return _share_among(logits.topk(5).indices.cpu(), labels)


def share_correct(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy, 0…1: over all samples at once, so a short last batch weighs what it is worth."""
    return float((predictions == labels.cpu()).double().mean())


def accuracy(model: nn.Module, samples: Samples) -> float:
    """Top-1 accuracy of the network, 0…1."""
    return share_correct(predict(model, samples), samples.labels)
