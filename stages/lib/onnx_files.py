"""The ONNX files of one seed: exported, quantized, executed on all images, compared with torch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib import device, onnx_export, onnx_int8, onnx_run, paths
from stages.lib.evaluation import Data
from stages.lib.records import Row
from stages.lib.results import Results


class Source(NamedTuple):
    """A trained network on the CPU, its row, and with what the methods of its files begin."""

    row: Row
    model: nn.Module
    prefix: str


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
        self.data = kept.ruler.data
        # Lines of records.AGREEMENT.
        self.agreements: list[dict[str, Any]] = []

    def _keep(
        self, source: Source, method: str, file: bytes, bits: int, wanted: torch.Tensor
    ) -> Row:
        name = paths.onnx_name(method, source.row.target_sparsity)
        (self.kept.directory / name).write_bytes(file)
        network = onnx_run.session(file, self.threads, name=name)
        test = onnx_run.logits(network, self.data.test)
        validation = onnx_run.logits(network, self.data.validation)
        row = self.kept.keep_saved(
            source.model,
            method,
            name,
            target_sparsity=source.row.target_sparsity,
            weight_bits=bits,
            extra_epochs=source.row.extra_epochs,
            bytes_on_disk=len(file),
            predicted=onnx_run.predictions(validation, test, self.data),
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

    def add(self, source: Source, calibrations: Mapping[str, str]) -> list[Row]:
        """Keeps the float32 file of a network and its int8 files; their rows, in this order.

        calibrations: how int8 chooses the ranges of activations, by the end of the method's name.
        """
        row = source.row
        about = {"method": row.method, "seed": row.seed, "target_sparsity": row.target_sparsity}
        file = onnx_export.export(
            source.model,
            self.data.test.normalize,
            self.data.image_shape,
            self.data.classes,
            about,
        )
        wanted = onnx_export.torch_logits(source.model, self.data.test)
        rows = [self._keep(source, f"{source.prefix}_float32", file, 32, wanted)]
        seen = onnx_int8.observe(file, self.int8.images.numpy(), self.threads)
        for ending, calibration in calibrations.items():
            ranges = onnx_int8.ranges(seen, calibration, self.int8.percentile)
            how = {"weight_bits": self.int8.bits, "calibration": calibration}
            small = onnx_int8.quantize(file, ranges, self.int8.bits, how)
            rows.append(
                self._keep(source, f"{source.prefix}_{ending}", small, self.int8.bits, wanted)
            )
        return rows

    def add_all(self, networks: list[Source], calibrations: list[str]) -> list[list[Row]]:
        """For each network its float32 row and its int8 row; the first is the baseline.

        Its int8 files are made with every calibration. The one that is best on validation images
        (the first of equals) is the one that is returned, and taken for all other networks.
        """
        baseline, *others = networks
        float32, *quantized = self.add(baseline, {f"int8_{name}": name for name in calibrations})
        best = max(quantized, key=lambda row: row.validation_accuracy)
        calibration = calibrations[quantized.index(best)]
        return [[float32, best], *(self.add(one, {"int8": calibration}) for one in others)]
