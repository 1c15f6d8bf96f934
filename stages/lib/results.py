"""What a stage leaves for one seed: rows, kept models, test predictions of whole networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stages.lib import checkpoints, outputs, paths, records
from stages.lib.measuring import Ruler


class Results:
    """Collects into `directory`, which will be known as `final` once it is whole."""

    def __init__(self, directory: Path, final: Path, ruler: Ruler) -> None:
        self.directory, self.final, self.ruler = directory, final, ruler
        self.rows: list[records.Row] = []
        self.predictions: dict[str, torch.Tensor] = {}

    def note(self, model: nn.Module, method: str, **about: Any) -> records.Row:
        """Measures a network whose file is not kept. `about`: as in Ruler.row."""
        row, predictions = self.ruler.row(model, method, **about)
        self.rows.append(row)
        # A sweep of single layers would be many predictions that nothing compares.
        if row.layer == records.ALL_LAYERS:
            name = paths.prediction_name(
                method, row.target_sparsity, row.weight_bits, row.times_smaller
            )
            self.predictions[name] = predictions
        return row

    def keep(self, model: nn.Module, method: str, name: str, **about: Any) -> records.Row:
        """Saves the network as `name`, measures it and stores its test predictions."""
        size = checkpoints.save_model(model, self.directory / name)
        return self.keep_saved(model, method, name, bytes_on_disk=size, **about)

    def keep_saved(self, model: nn.Module, method: str, name: str, **about: Any) -> records.Row:
        """As `keep`, for a network whose file `name` stands in the directory already."""
        return self.note(model, method, kept_as=self.final / name, **about)

    def _write(self) -> None:
        records.write(self.directory / paths.ROWS, self.rows)
        if self.predictions:
            checkpoints.save_tensors(self.directory / paths.PREDICTIONS, self.predictions)


@contextmanager
def collect(final: Path, ruler: Ruler) -> Iterator[Results]:
    """Yields a collector whose directory takes `final`'s place, whole, when the block ends well."""
    with outputs.whole_directory(final) as directory:
        results = Results(directory, final, ruler)
        yield results
        results._write()
