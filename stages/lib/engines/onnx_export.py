"""Exports a torch network to an ONNX file that reads raw pixels, with its normalization inside.

The deployed file takes images as in the prepared data, so they cannot be normalized wrongly.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from stages.lib.core import errors, preprocessing
from stages.lib.core.errors import UserError
from stages.lib.engines import executors, onnx_session
from stages.lib.engines.onnx_session import IMAGES, LOGITS
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.samples import Samples
from stages.lib.models.modes import input_like
from stages.lib.models.origins import copied

# Opset 20 has GELU and hard swish as operators, and is the newest that both exporters write.
OPTIONS = {"opset_version": 20, "input_names": [IMAGES], "output_names": [LOGITS]}
# The keys of metadata_props. Their values are JSON.
CLASSES, ABOUT, PREPROCESSING = "classes", "about", "preprocessing"
# The exporters see this many images. The check uses another batch size and other images, and so
# finds a fixed batch size or a branch that depends on values.
TRACED, BATCH, CHECKED = 2, 3, 30
# The forms of Constant nodes beside tensors, and their types.
NUMBERS = {
    "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
    "value_ints": np.int64,
}  # fmt: skip
# Relative to the largest logit. Sums are in another order, and batch norm is folded into weights.
TOLERANCE = 1e-3
FIXED_BATCH = (
    "its code takes the number of images for a fixed one: write x.shape[0], not len(x) or a number"
)


class Agreement(NamedTuple):
    """How well a file agrees with torch.

    difference: the largest absolute difference of any logit.
    largest: torch's largest absolute logit.
    agreement: the share of images with the same top-1 class.
    images: their number.
    """

    difference: float
    largest: float
    agreement: float
    images: int

    @property
    def is_same(self) -> bool:
        """Whether the difference is only rounding."""
        return self.difference <= TOLERANCE * max(1.0, self.largest)


def compare(reference: torch.Tensor, logits: torch.Tensor) -> Agreement:
    """Compares logits with torch's, `reference`: both float32 [n, classes]."""
    return Agreement(
        float((reference - logits).abs().max()),
        float(reference.abs().max()),
        float((reference.argmax(1) == logits.argmax(1)).double().mean()),
        len(reference),
    )


def torch_logits(model: nn.Module, samples: Samples) -> torch.Tensor:
    """The logits of every image, float32 [n, classes], on the CPU, of a network in eval mode."""
    like = input_like(model)
    with torch.no_grad():
        return torch.cat([model(batch.to(like)).cpu() for batch in samples.batches()])


class _FromPixels(nn.Module):
    """The network with its normalization: uint8 [n, c, h, w] to logits."""

    def __init__(self, network: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", normalize.scale.cpu())
        self.register_buffer("offset", normalize.offset.cpu())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float() * self.scale + self.offset)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silences the exporters, which warn of their age and of every branch on sizes, and print
    graphs that they cannot export. Their files are compared with the network anyway.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Keeps torch from computing a transformer layer in one operator, which ONNX does not have."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _traced(network: nn.Module, images: torch.Tensor, folded: bool) -> onnx.ModelProto:
    """Exports by tracing. It takes 0.15 s for the ConvNet, the other exporter 5 s, and the result
    is as exact for every family of torchvision (measured with torch 2.15).
    """
    file, axes = io.BytesIO(), {IMAGES: {0: "n"}, LOGITS: {0: "n"}}
    # In evaluation mode, it would fold batch norms into weights before all else.
    mode = torch.onnx.TrainingMode
    torch.onnx.export(
        network, (images,), file, dynamo=False, dynamic_axes=axes, do_constant_folding=folded,
        training=mode.EVAL if folded else mode.PRESERVE, **OPTIONS,
    )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def _captured(network: nn.Module, images: torch.Tensor, folded: bool) -> onnx.ModelProto:
    """Exports by torch.export, for networks that tracing cannot follow. It always folds some."""
    shapes = ({0: torch.export.Dim("n")},)
    program = torch.onnx.export(
        network, (images,), dynamo=True, dynamic_shapes=shapes, verbose=False, **OPTIONS
    )
    return program.model_proto


def _with_initializers(graph: onnx.GraphProto) -> None:
    """Turns Constant nodes, which ONNX Runtime does not quantize, into initializers, in place, and
    so the Identity nodes by which the exporter lets layers share equal values (biases of zeros).
    """
    known = {one.name: one for one in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        if node.input[0] in known and node.output[0] != LOGITS:
            known[node.output[0]] = graph.initializer.add()
            known[node.output[0]].CopyFrom(known[node.input[0]])
            known[node.output[0]].name = node.output[0]
            graph.node.remove(node)
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        (attribute,) = node.attribute
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            tensor = value
        elif attribute.name in NUMBERS:
            tensor = numpy_helper.from_array(np.array(value, NUMBERS[attribute.name]))
        else:  # texts, sparse tensors
            continue
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)


def sealed(proto: onnx.ModelProto, metadata: Mapping[str, Any]) -> bytes:
    """The file of a ModelProto. The same network gives the same bytes: notes of the exporters about
    themselves, source files and this machine are replaced by `metadata`, values for JSON.

    Raises UserError if the ONNX checker refuses the network.
    """
    _with_initializers(proto.graph)
    proto.producer_name, proto.producer_version = "", ""
    proto.domain, proto.doc_string, proto.model_version = "", "", 0
    proto.graph.name, proto.graph.doc_string = "network", ""
    del proto.metadata_props[:], proto.graph.metadata_props[:], proto.graph.value_info[:]
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input,
                 *proto.graph.output):  # fmt: skip
        part.doc_string = ""
        del part.metadata_props[:]
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=json.dumps(value))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = errors.reason(error)
        raise UserError(f"the exported network is no valid ONNX ({reason})") from None
    return proto.SerializeToString(deterministic=True)


def metadata(model: bytes) -> dict[str, Any]:
    """The parsed metadata of an exported network, by key."""
    props = onnx.load_from_string(model).metadata_props
    return {entry.key: json.loads(entry.value) for entry in props}


def export(
    model: nn.Module,
    samples: Samples,
    classes: Sequence[str],
    about: Mapping[str, Any],
    folded: bool = True,
) -> bytes:
    """The bytes of an ONNX file with input `images`, uint8 [n, channels, height, width], and output
    `logits`, float32 [n, classes], for any n.

    samples: their normalization goes into the file. The logits of CHECKED of them are compared with
        the network's before the file is returned.
    classes: their names, in the order of the logits.
    about: JSON values for the file's metadata.
    folded: whether what is constant is computed beforehand, which makes the file faster. Otherwise
        weights are in it as in the network.

    Raises UserError if no exporter can export the network.
    """
    images = samples.images[torch.arange(CHECKED) % len(samples.images)].cpu()
    # A copy, in the memory layout that exporters expect.
    portable = copied(model).to("cpu", memory_format=torch.contiguous_format)
    network = _FromPixels(portable, samples.normalize).eval()
    shape = ", ".join(map(str, images.shape[1:]))
    described = {
        "input": f"{IMAGES}: uint8 [n, {shape}], 0…255; normalization is inside",
        "output": f"{LOGITS}: float32 [n, {len(classes)}], in the order of classes",
    }
    notes = {
        CLASSES: list(classes),
        ABOUT: {**described, **about},
        PREPROCESSING: preprocessing.describe(tuple(images.shape[1:]))
        | {"normalization": {"inside": True, **samples.normalize.statistics}},
    }
    with torch.no_grad():
        reference = torch.cat([network(batch) for batch in images.split(BATCH)])
    problems = []
    for exporter in (_traced, _captured):
        try:
            with _silent(), _layer_by_layer():
                file = sealed(exporter(network, images[:TRACED], folded), notes)
            execute = onnx_session.load(file, 1, "the ONNX network")
            try:
                logits = executors.logits(execute, images, BATCH)
            except Exception:  # noqa: BLE001 - engines have errors of their own
                executors.logits(execute, images[:TRACED], TRACED)
                raise UserError(FIXED_BATCH) from None
            if logits.shape != reference.shape:
                raise UserError(f"it answers with {list(logits.shape)}")
            agreement = compare(reference, logits)
            if agreement.is_same:
                return file
            problems.append(f"its logits differ by {agreement.difference:.2g}")
        except Exception as error:  # noqa: BLE001 - any network may be named
            problems.append(errors.reason(error))
    raise UserError(f"the network cannot be exported to ONNX ({problems[0]})")
