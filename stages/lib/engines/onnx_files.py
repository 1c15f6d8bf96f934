"""Makes the ONNX files of one seed, executes them on all images and compares them with torch."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx
import torch
from torch import nn

from stages.lib.core import engines, methods, paths
from stages.lib.core.engines import Engine
from stages.lib.core.errors import UserError, reason
from stages.lib.core.records import Row
from stages.lib.engines import (
    adaptive_rounding,
    bias_correction,
    calibration,
    equalization,
    executors,
    layer_errors,
    onnx_export,
    onnx_int8,
    onnx_session,
)
from stages.lib.engines.calibration import Observed, Range
from stages.lib.evaluation import device, inference
from stages.lib.evaluation.evaluator import Predicted
from stages.lib.evaluation.results import Results
from stages.lib.evaluation.samples import Data, Samples

FLOAT32, INT8 = methods.FORMS
FLOAT_BITS = 32
# An int8 file may lose everything: no layer stays in float32 for it.
NO_BUDGET = 1.0
# Accuracies in rows have six digits.
ROUNDING = 1e-6


class Source(NamedTuple):
    """A trained network on the CPU, its row, and, once computed, its logits on the test images and
    its classes on the validation images.
    """

    row: Row
    model: nn.Module
    logits: torch.Tensor | None = None
    classes: torch.Tensor | None = None


class Int8(NamedTuple):
    """How networks become int8.

    bits: of weights.
    percent: of the values that the calibration `percentile` keeps.
    improvements: some of methods.IMPROVEMENTS.
    max_drop: validation accuracy that a file may lose, or else layers stay in float32.
    """

    bits: int
    percent: float
    improvements: Sequence[str] = ()
    max_drop: float = NO_BUDGET


def calibration_samples(data: Data, count: int, seed: int) -> Samples:
    """`count` training images drawn by the seed, or all if there are fewer."""
    train = data.train
    stream = device.generator(seed, "onnx calibration")
    order = torch.randperm(len(train.images), generator=stream)[:count]
    return Samples(train.images[order], train.labels[order], train.normalize)


class Collection:
    """Collects files and rows in `results`, measured in ONNX Runtime, and lines of
    records.AGREEMENT in `agreements`, of every engine, and of records.LAYER_NOISE in `layers`.

    samples: for the calibration.
    threads: of each engine.
    versions: of the optional engines, of `engines.read`.
    least_agreement: a file whose class is torch's on a smaller share of the validation images is
        not kept: its row has no file, and the reason is told.
    """

    def __init__(
        self,
        results: Results,
        samples: Samples,
        int8: Int8,
        threads: int,
        versions: engines.Versions,
        least_agreement: float = 0.0,
    ) -> None:
        self.results, self.samples, self.int8 = results, samples, int8
        self.threads, self.versions = threads, versions
        self.least_agreement = least_agreement
        self.data = results.evaluator.data
        self.agreements: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []

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
        about = {"target_sparsity": source.row.target_sparsity, "weight_bits": bits}
        measured = {
            "extra_epochs": source.row.extra_epochs, "bytes_on_disk": len(file),
            "predicted": predicted,
        }  # fmt: skip
        agreed = inference.share_correct(predicted.validation, source.classes)
        if agreed < self.least_agreement:
            self.results.refuse(
                method,
                f"its class is torch's on {100 * agreed:.1f} % of the validation images;"
                f" export_onnx.least_agreement asks for {100 * self.least_agreement:.1f} %",
                **about,
            )
            row = self.results.record(source.model, method, **about, **measured)
            self._compare(source, row, first, predicted, logits)
            return row
        (self.results.directory / name).write_bytes(file)
        row = self.results.record_file(source.model, method, name, **about, **measured)
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

    def _improved(
        self, float32: bytes
    ) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, Observed]]:
        """The network before its weights are rounded, the one that is quantized, and the values of
        the activations.
        """
        images, bits, threads = self.samples.images, self.int8.bits, self.threads
        proto = onnx_int8.inferred(float32)
        if "equalization" in self.int8.improvements:
            proto = equalization.equalized(proto)
        exact, observed = proto, onnx_int8.observe(proto.SerializeToString(), images, threads)
        if "adaptive_rounding" in self.int8.improvements:
            proto = adaptive_rounding.rounded(proto, images, bits, threads)
        if "bias_correction" in self.int8.improvements:
            proto = bias_correction.corrected(proto, images, bits, threads)
        return exact, proto, observed

    def _within_budget(
        self,
        source: Source,
        model: bytes,
        ranges: Mapping[str, Range],
        noisiest: Sequence[str],
        about: Mapping[str, Any],
    ) -> tuple[bytes, list[str]]:
        """The int8 file, and its layers in float32: the fewest of the noisiest with which it loses
        no more validation accuracy than it may; none without a budget.
        """
        bits, (engine, *_) = self.int8.bits, engines.of_file(f"int8{paths.ONNX}")
        least = source.row.validation_accuracy - self.int8.max_drop - ROUNDING
        for count in range(len(noisiest) + 1):
            kept = list(noisiest[:count])
            notes = {**about, "float32_layers": kept} if kept else about
            file = onnx_int8.quantize(model, ranges, bits, notes, kept)
            if self.int8.max_drop == NO_BUDGET:
                break
            predicted, _ = self._executed(engine, file, f"int8 of {source.row.method}")
            labels = self.data.validation.labels
            if inference.share_correct(predicted.validation, labels) >= least:
                break
        return file, kept

    def _add_int8(self, source: Source, float32: bytes, calibrations: Sequence[str]) -> list[str]:
        """Keeps the int8 file with the calibration that is best on validation images (of equals,
        the first), and returns that calibration. If there are several, each one's file is kept too.
        """
        method, bits = source.row.method, self.int8.bits
        exact, proto, observed = self._improved(float32)
        model, images = proto.SerializeToString(), self.samples.images
        files, accuracies, layers = {}, {}, {}
        for name in calibrations:
            choose = calibration.method(name, self.int8.percent)
            ranges = {tensor: choose(values) for tensor, values in observed.items()}
            noise = layer_errors.table(exact, proto, ranges, images, bits, self.threads)
            about = {"weight_bits": bits, "calibration": name}
            about |= (
                {"improvements": list(self.int8.improvements)} if self.int8.improvements else {}
            )
            ordered = [line["layer"] for line in layer_errors.noisiest(noise)]
            files[name], kept = self._within_budget(source, model, ranges, ordered, about)
            layers[name] = [
                {**line, "float32": "yes" if line["layer"] in kept else "no"} for line in noise
            ]
            if len(calibrations) > 1:
                own = methods.exported_name(method, INT8, name)
                accuracies[name] = self._record(source, own, files[name], bits).validation_accuracy
        best = max(calibrations, key=lambda name: accuracies.get(name, 0.0))
        row = self._record(source, methods.exported_name(method, INT8), files[best], bits)
        about = {"seed": row.seed, "method": row.method, "target_sparsity": row.target_sparsity}
        self.layers += [{**about, **line} for line in layers[best]]
        return [best]

    def add(self, source: Source, calibrations: Sequence[str]) -> Sequence[str]:
        """Keeps the float32 file and, if there are calibrations, the int8 file of a network. If one
        cannot be made, a line of `agreements` says why. Returns the calibration of the int8 file in
        a list; without one, the first.
        """
        row, form, bits = source.row, FLOAT32, FLOAT_BITS
        about = {"method": row.method, "seed": row.seed, "target_sparsity": row.target_sparsity}
        try:
            file = onnx_export.export(source.model, self.samples, self.data.classes, about)
            logits = onnx_export.torch_logits(source.model, self.data.test)
            classes = onnx_export.torch_logits(source.model, self.data.validation).argmax(1)
            source = source._replace(logits=logits, classes=classes)
            self._record(source, methods.exported_name(row.method, form), file, bits)
            form, bits = INT8, self.int8.bits
            return self._add_int8(source, file, calibrations) if calibrations else []
        except Exception as error:  # noqa: BLE001 - any network may be named
            why = str(error) if isinstance(error, UserError) else reason(error)
            method, sparsity = methods.exported_name(row.method, form), row.target_sparsity
            self._note(row, method, bits, note=why)
            self.results.refuse(method, why, target_sparsity=sparsity, weight_bits=bits)
            return calibrations[:1]

    def add_all(self, sources: Sequence[Source], calibrations: Sequence[str]) -> None:
        """Adds all. The first, the baseline, tries every calibration; others use its best."""
        baseline, *others = sources
        chosen = self.add(baseline, calibrations)
        for source in others:
            self.add(source, chosen)
