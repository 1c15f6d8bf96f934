"""Images and int8 files for the tests of ONNX."""

import hashlib

import onnx
import torch

from stages.lib.core.engines import ENGINES
from stages.lib.engines import calibration, executors, onnx_export, onnx_int8
from stages.lib.evaluation import images
from stages.lib.evaluation.samples import Samples
from tests import toys

MEAN, DEVIATION = [0.4, 0.5, 0.6, 0.3], [0.2, 0.3, 0.25, 0.2]


def samples(count, shape=(1, 8, 8), seed=0):
    """Noise, with a normalization of its own for every channel."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    parts = MEAN[: shape[0]], DEVIATION[: shape[0]]
    return Samples(pixels, torch.zeros(count), images.Normalize(*parts, torch.device("cpu")))


def int8(file, given, bits=8, method="minmax"):
    observed = onnx_int8.observe(file, given, 1)
    choose = calibration.method(method, 99.9)
    ranges = {name: choose(values) for name, values in observed.items()}
    return onnx_int8.quantize(file, ranges, bits, {"weight_bits": bits})


def operators(file):
    return [node.op_type for node in onnx.load_from_string(file).graph.node]


def answers(file, given, engine="onnxruntime"):
    execute = executors.load(ENGINES[engine], file, 1, "the network")
    return executors.logits(execute, given.images, 100)


def compared(model, file, given, engine="onnxruntime"):
    """torch and an engine."""
    return onnx_export.compare(onnx_export.torch_logits(model, given), answers(file, given, engine))


def digests():
    """Of a file and its int8 file."""
    given = toys.halves(40)
    file = onnx_export.export(toys.lived_in(toys.convnet(8)), given, ["above", "below", "dark"], {})
    files = file, int8(file, given.images, method="entropy")
    return [hashlib.sha256(one).hexdigest() for one in files]
