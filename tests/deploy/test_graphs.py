"""A kept network runs on ONNX Runtime from its own file, and answers as torch does."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import DenseNet, VisionTransformer

from stages.lib.compression import packed
from stages.lib.deploy import graphs, predict
from stages.lib.engines import onnx_export
from stages.lib.models import checkpoints
from stages.lib.quantization import linear
from tests import onnx_toys, toys
from tests.compression.test_packed import quantized_of

CLASSES = ["above", "below", "dark"]


def answers(graph, given):
    return torch.from_numpy(predict.Network(graph).logits(given.images.numpy()))


@pytest.mark.parametrize("kind", ["float32", "packed", "integers"])
def test_a_file_of_any_kind_runs(tmp_path, kind):
    """Only the file itself holds weights."""
    model, given = toys.lived_in(toys.convnet(8)), onnx_toys.samples(30)
    if kind == "packed":
        file = tmp_path / "smallest.packed"
        packed.save(file, model, quantized_of(model))
        model, _ = packed.load(file)
    elif kind == "integers":
        file = tmp_path / "smallest.safetensors"
        linear.save_model(file, model, linear.quantize_weights(model, 8, "affine", "channel"))
        model, _ = linear.load_model(file)
    else:
        file = tmp_path / "smallest.safetensors"
        checkpoints.save_model(model, file)
    integer = kind != "float32"
    graph, *more = graphs.make_runnable(model, file, integer, given, CLASSES, {})
    assert len(more) == 2 * integer
    compared = onnx_export.compare(onnx_export.torch_logits(model, given), answers(graph, given))
    assert compared.is_same
    assert graph.stat().st_size < checkpoints.serialized_bytes(model) / 4
    if integer:
        more[-1].unlink()
        with pytest.raises(predict.ProblemError, match=f"python unpack.py {file.name}"):
            predict.Network(graph)


@pytest.mark.parametrize(
    "build",
    [
        lambda: VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3),
        lambda: DenseNet(8, (2, 2), 16, num_classes=3),
    ],
    ids=["vit", "densenet"],
)
def test_graphs_of_other_families_hold_no_weights(tmp_path, build):
    model, given = toys.lived_in(build()), onnx_toys.samples(30, (3, 32, 32))
    weights = tmp_path / "x.safetensors"
    checkpoints.save_tensors(weights, checkpoints.tensors_of(model))
    graphs.write(model, weights, tmp_path / "x.onnx", given, CLASSES, {})
    found = answers(tmp_path / "x.onnx", given)
    assert onnx_export.compare(onnx_export.torch_logits(model, given), found).is_same
    # Other weights in the same file are other answers.
    stored = bytearray(weights.read_bytes())
    stored[-4000:] = np.float32([1.5] * 1000).tobytes()
    weights.write_bytes(stored)
    assert not torch.equal(answers(tmp_path / "x.onnx", given), found)


class Resized(nn.Module):
    """Its buffers have the bytes of an axis, and of the factors by which it resizes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor([2]))
        self.register_buffer("factors", torch.tensor([1.0, 1.0, 2.0, 2.0]))
        self.head = nn.Linear(256, 3)

    def forward(self, x):
        x = functional.interpolate(x, scale_factor=2.0).unsqueeze(2).flatten(1)
        return self.head(x * self.factors[0] * self.steps.sum())


def test_what_decides_shapes_stays_in_the_graph(tmp_path):
    model, given = Resized().eval(), onnx_toys.samples(30)
    weights = tmp_path / "x.safetensors"
    checkpoints.save_tensors(weights, checkpoints.tensors_of(model))
    graphs.write(model, weights, tmp_path / "x.onnx", given, CLASSES, {})
    found = answers(tmp_path / "x.onnx", given)
    assert onnx_export.compare(onnx_export.torch_logits(model, given), found).is_same
