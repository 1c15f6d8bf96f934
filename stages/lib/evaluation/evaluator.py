"""Measures networks, all in the same way: from a network to its row and its predictions."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core.records import Row
from stages.lib.evaluation import counting, inference
from stages.lib.evaluation.samples import Data
from stages.lib.models import checkpoints


class Predicted(NamedTuple):
    """The predicted class of each validation and test image, int64 [n], and the top-5 accuracy on
    the test images (None if there are too few classes).
    """

    validation: torch.Tensor
    test: torch.Tensor
    test_top5: float | None = None


def predictions(network: nn.Module, data: Data) -> Predicted:
    """The network's predictions for the validation and the test images."""
    validation = inference.predict(network, data.validation)
    if len(data.classes) < inference.LEAST_CLASSES_FOR_TOP5:
        return Predicted(validation, inference.predict(network, data.test))
    return Predicted(validation, *inference.predict_with_top5(network, data.test))


@dataclass(frozen=True)
class Evaluator:
    """Measures the networks of one stage and seed.

    baseline_weights: the number of the baseline's prunable weights. Sparsity is a share of it, also
    for networks with fewer filters.
    """

    seed: int
    data: Data
    baseline_weights: int

    def row(
        self,
        network: nn.Module,
        method: str,
        *,
        bytes_on_disk: int | None = None,
        predicted: Predicted | None = None,
        **about: Any,
    ) -> tuple[Row, Predicted]:
        """Measures the network: its row and its predictions.

        bytes_on_disk: of the network's file, if it is not the float32 model's.
        predicted: the predictions, if they are known already.
        about: columns of records.Row that say how the network was made and where its file is.
        """
        predicted = predicted or predictions(network, self.data)
        correct = inference.share_correct
        row = Row(
            seed=self.seed,
            method=method,
            sparsity=1 - counting.nonzero_weights(network) / self.baseline_weights,
            parameters=counting.parameters(network),
            nonzero_parameters=counting.nonzero_parameters(network),
            macs=counting.macs(network, self.data.image_shape),
            validation_accuracy=correct(predicted.validation, self.data.validation.labels),
            test_accuracy=correct(predicted.test, self.data.test.labels),
            test_top5=predicted.test_top5,
            bytes_on_disk=bytes_on_disk or checkpoints.serialized_bytes(network),
            **about,
        )
        return row, predicted
