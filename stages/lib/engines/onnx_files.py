"""The ONNX files of one seed: exported, quantized, executed on all images, compared with torch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core import methods, paths
from stages.lib.core.records import Row
from stages.lib.engines import onnx_export, onnx_int8, onnx_session
from stages.lib.evaluation import device
from stages.lib.evaluation.results import Results
from stages.lib.evaluation.samples import Data


class Source(NamedTuple):
    """A trained network on the CPU, and its row."""

    row: Row
    model: nn.Module


class Int8(NamedTuple):
    """bits of the weights; images, uint8 [n, c, h, w], on which the ranges of activations are seen;
    percentile: of the values that this method keeps.
    """

    bits: int
    images: torch.Tensor
    percentile: float


def calibration_images(data: Data, count: int, seed: int) -> torch.Tensor:
    """`count` training images drawn by the seed, all where there are fewer: uint8 [n, c, h, w]."""
    images = data.train.images
    order = torch.randperm(len(images), generator=device.generator(seed, "onnx calibration"))
    return images[order[:count]].cpu()


class Collection:
    """Collects into `kept`, whose rows are then of what ONNX Runtime executed."""

    def __init__(self, kept: Results, int8: Int8, threads: int) -> None:
        self.kept, self.int8, self.threads = kept, int8, threads
        self.data = kept.evaluator.data
        # Lines of records.AGREEMENT.
        self.agreements: list[dict[str, Any]] = []

    def _keep(
        self, source: Source, method: str, file: bytes, bits: int, wanted: torch.Tensor
    ) -> Row:
        name = paths.onnx_name(method, source.row.target_sparsity)
        (self.kept.directory / name).write_bytes(file)
        network = onnx_session.session(file, self.threads, name=name)
        test = onnx_session.logits(network, self.data.test)
        validation = onnx_session.logits(network, self.data.validation)
        row = self.kept.record_file(
            source.model,
            method,
            name,
            target_sparsity=source.row.target_sparsity,
            weight_bits=bits,
            extra_epochs=source.row.extra_epochs,
            bytes_on_disk=len(file),
            predicted=onnx_session.predictions(validation, test, self.data),
        )
        found = onnx_export.compare(wanted, test)
        self.agreements.append(
            {
                "seed": row.seed,
                "method": method,
                "target_sparsity": row.target_sparsity,
                "weight_bits": bits,
                "images": found.images,
                "largest_difference": found.difference,
                "largest_logit": found.largest,
                "agreement": found.agreement,
                "model": row.model,
            }
        )
        return row

    def add(self, source: Source, calibrations: Sequence[str]) -> tuple[list[Row], str]:
        """Keeps the float32 file of a network, and its int8 file by the calibration that is best on
        validation images (the first of equals): their rows, and that calibration. Where there are
        several, the int8 file by each is kept too.
        """
        row, bits = source.row, self.int8.bits
        about = {"method": row.method, "seed": row.seed, "target_sparsity": row.target_sparsity}
        file = onnx_export.export(
            source.model,
            self.data.test.normalize,
            self.data.image_shape,
            self.data.classes,
            about,
        )
        wanted = onnx_export.torch_logits(source.model, self.data.test)
        float32 = self._keep(source, methods.exported_name(row.method, "float32"), file, 32, wanted)
        seen = onnx_int8.observe(file, self.int8.images.numpy(), self.threads)
        files: dict[str, bytes] = {}
        accuracies: dict[str, float] = {}
        for calibration in calibrations:
            ranges = onnx_int8.ranges(seen, calibration, self.int8.percentile)
            how = {"weight_bits": bits, "calibration": calibration}
            files[calibration] = onnx_int8.quantize(file, ranges, bits, how)
            if len(calibrations) > 1:
                kept = self._keep(
                    source,
                    methods.exported_name(row.method, "int8", calibration),
                    files[calibration],
                    bits,
                    wanted,
                )
                accuracies[calibration] = kept.validation_accuracy
        best = max(calibrations, key=lambda name: accuracies.get(name, 0.0))
        return [
            float32,
            self._keep(
                source, methods.exported_name(row.method, "int8"), files[best], bits, wanted
            ),
        ], best

    def add_all(self, networks: list[Source], calibrations: list[str]) -> list[list[Row]]:
        """For each network its float32 row and its int8 row; the first is the baseline, which tries
        every calibration and chooses the one for all.
        """
        baseline, *others = networks
        rows, calibration = self.add(baseline, calibrations)
        return [rows, *(self.add(one, [calibration])[0] for one in others)]
