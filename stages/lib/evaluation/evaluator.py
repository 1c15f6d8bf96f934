"""Measures networks, all in the same way: from a network to its row and its predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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


def predictions(model: nn.Module, data: Data) -> Predicted:
    """The network's predictions for the validation and the test images."""
    validation = inference.predict(model, data.validation)
    if len(data.classes) < inference.LEAST_CLASSES_FOR_TOP5:
        return Predicted(validation, inference.predict(model, data.test))
    return Predicted(validation, *inference.predict_with_top5(model, data.test))


@dataclass(frozen=True)
class Evaluator:
    """Measures the networks of one stage and seed.

    dense_weights: the number of the baseline's prunable weights. Sparsity is a share of it, also
    for networks with fewer filters.
    """

    seed: int
    data: Data
    dense_weights: int

    def row(
        self,
        model: nn.Module,
        method: str,
        *,
        target_sparsity: float = 0.0,
        layer: str = "all",
        weight_bits: int = 32,
        times_smaller: float = 1.0,
        extra_epochs: int = 0,
        bytes_on_disk: int | None = None,
        kept_as: Path | None = None,
        predicted: Predicted | None = None,
    ) -> tuple[Row, Predicted]:
        """Measures the network: its row and its predictions.

        bytes_on_disk: of the file, if it is not the float32 model's.
        predicted: the predictions, if they are known already.
        The other arguments are the columns of records.Row.
        """
        predicted = predicted or predictions(model, self.data)
        row = Row(
            seed=self.seed,
            method=method,
            layer=layer,
            weight_bits=weight_bits,
            target_sparsity=target_sparsity,
            times_smaller=times_smaller,
            sparsity=1 - counting.nonzero_weights(model) / self.dense_weights,
            parameters=counting.parameters(model),
            nonzero_parameters=counting.nonzero_parameters(model),
            macs=counting.macs(model, self.data.image_shape),
            extra_epochs=extra_epochs,
            validation_accuracy=inference.share_correct(
                predicted.validation, self.data.validation.labels
            ),
            test_accuracy=inference.share_correct(predicted.test, self.data.test.labels),
            bytes_on_disk=bytes_on_disk or checkpoints.serialized_bytes(model),
            test_top5=predicted.test_top5,
            model=kept_as.as_posix() if kept_as else "",
        )
        return row, predicted
