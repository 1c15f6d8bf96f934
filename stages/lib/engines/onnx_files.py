"""Makes the ONNX files of one seed, executes them on all images and compares them with torch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core import engines, methods, paths
from stages.lib.core.engines import Engine
from stages.lib.core.errors import UserError
from stages.lib.core.records import Row
from stages.lib.engines import calibration, executors, onnx_export, onnx_int8, onnx_session
from stages.lib.evaluation import device, inference
from stages.lib.evaluation.evaluator import Predicted
from stages.lib.evaluation.results import Results
from stages.lib.evaluation.samples import Data, Samples

FLOAT32, INT8 = methods.FORMS
FLOAT_BITS = 32


class Source(NamedTuple):
    """A trained network on the CPU, its row, and its logits on the test images, once computed."""

    row: Row
    model: nn.Module
    logits: torch.Tensor | None = None


def calibration_samples(data: Data, count: int, seed: int) -> Samples:
    """`count` training images drawn by the seed, or all if there are fewer."""
    train = data.train
    stream = device.generator(seed, "onnx calibration")
    order = torch.randperm(len(train.images), generator=stream)[:count]
    return Samples(train.images[order], train.labels[order], train.normalize)


class Collection:
    """Collects files and rows in `results`, measured in ONNX Runtime, and lines of
    records.AGREEMENT in `agreements`, of every engine.

    samples: for the calibration.
    bits: of int8 weights.
    percent: of the values that the calibration `percentile` keeps.
    threads: of each engine.
    versions: of the optional engines, of `engines.read`.
    """

    def __init__(
        self,
        results: Results,
        samples: Samples,
        bits: int,
        percent: float,
        threads: int,
        versions: engines.Versions,
    ) -> None:
        self.results, self.samples, self.bits = results, samples, bits
        self.percent, self.threads, self.versions = percent, threads, versions
        self.data = results.evaluator.data
        self.agreements: list[dict[str, Any]] = []

    def _note(self, row: Row, method: str, bits: int, **columns: Any) -> None:
        """Adds a line of records.AGREEMENT about a file of the network of `row`."""
        about = {"seed": row.seed, "method": method, "target_sparsity": row.target_sparsity}
        self.agreements.append({**about, "weight_bits": bits, **columns})

    def _executed(self, engine: Engine, file: bytes, name: str) -> tuple[Predicted, torch.Tensor]:
        """The predictions of a file in an engine, and its logits on the test images."""
        execute = executors.load(engine, file, self.threads, name)
        validation, test = (
            executors.logits(execute, part.images, part.batch_size)
            for part in (self.data.validation, self.data.test)
        )
        return onnx_session.predictions(validation, test, self.data), test

    def _compare(
        self, source: Source, row: Row, engine: Engine, predicted: Predicted, logits: torch.Tensor
    ) -> None:
        """Adds a line of records.AGREEMENT about an engine that executed a file."""
        agreement = onnx_export.compare(source.logits, logits)
        differs = row.weight_bits == FLOAT_BITS and not agreement.is_same
        accuracies = {
            f"{part}_accuracy": inference.share_correct(classes, samples.labels)
            for part, classes, samples in (
                ("validation", predicted.validation, self.data.validation),
                ("test", predicted.test, self.data.test),
            )
        }
        self._note(
            source.row, row.method, row.weight_bits, engine=engine.name, images=agreement.images,
            largest_difference=agreement.difference, largest_logit=agreement.largest,
            agreement=agreement.agreement, **accuracies, model=row.model,
            note="its logits are not torch's" if differs else "",
        )  # fmt: skip

    def _record(self, source: Source, method: str, file: bytes, bits: int) -> Row:
        """Keeps a file and its row, measured by executing it in the first engine. It is executed in
        every other one too, or a line says why not.
        """
        network = paths.network_name(method, source.row.target_sparsity, bits)
        name = network + paths.ONNX
        first, *further = engines.of_file(name)
        predicted, logits = self._executed(first, file, name)
        (self.results.directory / name).write_bytes(file)
        row = self.results.record_file(
            source.model,
            method,
            name,
            target_sparsity=source.row.target_sparsity,
            weight_bits=bits,
            extra_epochs=source.row.extra_epochs,
            bytes_on_disk=len(file),
            predicted=predicted,
        )
        self._compare(source, row, first, predicted, logits)
        for engine in further:
            why = engines.missing(engine, self.versions)
            try:
                if why:
                    raise UserError(why)
                predicted, logits = self._executed(engine, file, name)
            except UserError as error:
                self._note(row, method, bits, engine=engine.name, model=row.model, note=str(error))
                continue
            self.results.predictions[paths.executed_name(network, engine.name)] = predicted
            self._compare(source, row, engine, predicted, logits)
        return row

    def _add_int8(self, source: Source, float32: bytes, calibrations: Sequence[str]) -> str:
        """Keeps the int8 file with the calibration that is best on validation images (of equals,
        the first), and returns that calibration. If there are several, each one's file is kept too.
        """
        method, bits = source.row.method, self.bits
        observed = onnx_int8.observe(float32, self.samples.images, self.threads)
        files, accuracies = {}, {}
        for name in calibrations:
            choose = calibration.method(name, self.percent)
            ranges = {tensor: choose(values) for tensor, values in observed.items()}
            about = {"weight_bits": bits, "calibration": name}
            files[name] = onnx_int8.quantize(float32, ranges, bits, about)
            if len(calibrations) > 1:
                own = methods.exported_name(method, INT8, name)
                accuracies[name] = self._record(source, own, files[name], bits).validation_accuracy
        best = max(calibrations, key=lambda name: accuracies.get(name, 0.0))
        self._record(source, methods.exported_name(method, INT8), files[best], bits)
        return best

    def add(self, source: Source, calibrations: Sequence[str]) -> str:
        """Keeps the float32 file and the int8 file of a network. If one cannot be made, a line of
        `agreements` says why. Returns the calibration of the int8 file; without one, the first.
        """
        row, form, bits = source.row, FLOAT32, FLOAT_BITS
        about = {"method": row.method, "seed": row.seed, "target_sparsity": row.target_sparsity}
        try:
            file = onnx_export.export(source.model, self.samples, self.data.classes, about)
            logits = onnx_export.torch_logits(source.model, self.data.test)
            source = source._replace(logits=logits)
            self._record(source, methods.exported_name(row.method, form), file, bits)
            form, bits = INT8, self.bits
            return self._add_int8(source, file, calibrations)
        except UserError as error:
            self._note(row, methods.exported_name(row.method, form), bits, note=str(error))
            return calibrations[0]

    def add_all(self, sources: Sequence[Source], calibrations: Sequence[str]) -> None:
        """Adds all. The first, the baseline, tries every calibration; others use its best."""
        baseline, *others = sources
        chosen = self.add(baseline, calibrations)
        for source in others:
            self.add(source, [chosen])
