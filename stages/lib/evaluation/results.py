"""The results of a stage for one seed: rows, kept models, predictions of whole networks."""

from pathlib import Path
from typing import Any

from torch import nn

from stages.lib.core import outputs, paths, records
from stages.lib.evaluation.evaluator import Evaluator, Predicted
from stages.lib.models import checkpoints


class Results:
    """Collects results in `directory`, which becomes `final` when the stage is done."""

    def __init__(self, directory: Path, final: Path, evaluator: Evaluator) -> None:
        self.directory, self.final, self.evaluator = directory, final, evaluator
        self.rows: list[records.Row] = []
        self.predictions: dict[str, Predicted] = {}
        self.refused: list[dict[str, Any]] = []

    def record(self, network: nn.Module, method: str, **about: Any) -> records.Row:
        """Measures a network and stores its row and predictions. about: as in Evaluator.row."""
        row, predicted = self.evaluator.row(network, method, **about)
        self.rows.append(row)
        # Single pruned layers would add many predictions that nothing compares.
        if row.layer == records.ALL_LAYERS:
            name = paths.network_name(
                method, row.target_sparsity, row.weight_bits, row.times_smaller
            )
            self.predictions[name] = predicted
        return row

    def record_file(self, network: nn.Module, method: str, name: str, **about: Any) -> records.Row:
        """As `record`, for a network whose file `name` is in the directory already."""
        return self.record(network, method, model=(self.final / name).as_posix(), **about)

    def save(
        self, network: nn.Module, method: str, file: str | None = None, **about: Any
    ) -> records.Row:
        """As `record`, and saves the network, under its name unless `file` is given."""
        name = paths.network_name(method, about.get("target_sparsity", 0))
        file = file or f"{name}{paths.SAFETENSORS}"
        size = checkpoints.save_model(network, self.directory / file)
        return self.record_file(network, method, file, bytes_on_disk=size, **about)

    def refuse(self, method: str, reason: str, **about: Any) -> None:
        """Stores why there is no such network. about: columns of records.REFUSED."""
        self.refused.append(records.refusal(self.evaluator.seed, method, reason, **about))

    def write(self) -> None:
        """Writes the rows, what could not be made, and the predictions."""
        records.write(self.directory / paths.ROWS, self.rows)
        outputs.write_csv(self.directory / paths.REFUSED, records.REFUSED, self.refused)
        files = {"test": paths.PREDICTIONS, "validation": paths.VALIDATION_PREDICTIONS}
        for part, file in files.items():
            classes = {name: getattr(both, part) for name, both in self.predictions.items()}
            checkpoints.save_tensors(self.directory / file, classes)
