"""Predictions of a network, and their accuracy."""

from collections.abc import Iterator

import torch
from torch import nn

from stages.lib.evaluation.samples import Samples
from stages.lib.models.modes import evaluating, input_like

# Top-5 accuracy says little if five is a large part of all classes.
LEAST_CLASSES_FOR_TOP5 = 20


@torch.no_grad()
def _logits(model: nn.Module, samples: Samples) -> Iterator[torch.Tensor]:
    """Yields the logits of each batch, in order, computed where and as the weights are."""
    like = input_like(model)
    with evaluating(model):
        for batch in samples.batches():
            yield model(batch.to(like))


def predict(model: nn.Module, samples: Samples) -> torch.Tensor:
    """The class of the largest logit for each sample: int64 [n], on the CPU."""
    return torch.cat([logits.argmax(1).cpu() for logits in _logits(model, samples)])


def predict_with_top5(model: nn.Module, samples: Samples) -> tuple[torch.Tensor, float]:
    """As `predict`, with the top-5 accuracy."""
    logits = torch.cat([batch.cpu() for batch in _logits(model, samples)])
    return logits.argmax(1), top5_accuracy(logits, samples.labels)


def top5_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of samples whose class is among their five largest logits [n, classes]."""
    return float((logits.topk(5).indices == labels.cpu()[:, None]).any(1).double().mean())


def share_correct(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    """The accuracy, 0…1, over all samples: a short last batch counts by its size."""
    return float((predictions == labels.cpu()).double().mean())


def accuracy(model: nn.Module, samples: Samples) -> float:
    """The network's top-1 accuracy, 0…1."""
    return share_correct(predict(model, samples), samples.labels)
