"""A torch network as an ONNX file that reads raw pixels: normalisation inside, batch norm folded.

Whoever deploys the file gives it images as the prepared data holds them, and cannot normalise
them wrongly.
"""

import copy
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.engines import onnx_session
from stages.lib.engines.onnx_session import IMAGES, LOGITS
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.samples import Samples

# Has GELU and hard swish as operators, and is the newest that both exporters write.
OPSET = 20
# The keys of metadata_props: JSON each.
CLASSES, ABOUT = "classes", "about"
# The exporters see this many images, the check another number: a fixed batch size is found out.
TRACED, CHECKED = 2, 3
# Of the largest logit: sums in another order, and batch norm folded into the weights before it.
TOLERANCE = 1e-3


class Agreement(NamedTuple):
    """difference: the largest absolute one of all logits; largest: torch's largest absolute logit;
    agreement: share of images with the same top-1 class; images: how many.
    """

    difference: float
    largest: float
    agreement: float
    images: int


def compare(wanted: torch.Tensor, found: torch.Tensor) -> Agreement:
    """How far the logits `found` are from `wanted`: float32 [n, classes] both."""
    return Agreement(
        float((wanted - found).abs().max()),
        float(wanted.abs().max()),
        float((wanted.argmax(1) == found.argmax(1)).double().mean()),
        len(wanted),
    )


def torch_logits(model: nn.Module, samples: Samples) -> torch.Tensor:
    """Of every image: float32 [n, classes], on the CPU. The network is in evaluation mode."""
    first = next(model.parameters())
    with torch.inference_mode():
        return torch.cat([model(batch.to(first)).cpu() for batch in samples.batches()])


class _FromPixels(nn.Module):
    """The network behind its normalisation: uint8 [n, c, h, w] to logits."""

    def __init__(self, network: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", normalize.scale.cpu())
        self.register_buffer("offset", normalize.offset.cpu())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float() * self.scale + self.offset)


def _portable(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, in the memory layout that exporters expect."""
    return (
        copy.deepcopy(model)
        .cpu()
        ._apply(lambda tensor: tensor.detach().contiguous(memory_format=torch.contiguous_format))
        .eval()
    )


def _traced(network: nn.Module, images: torch.Tensor) -> Any:
    """By torch's tracing exporter: 0.15 s for the ConvNet, where the other takes 5 s, and as
    faithful for every family of torchvision (measured with torch 2.15).
    """
    import onnx

    file = io.BytesIO()
    torch.onnx.export(
        network,
        (images,),
        file,
        dynamo=False,
        opset_version=OPSET,
        input_names=[IMAGES],
        output_names=[LOGITS],
        dynamic_axes={IMAGES: {0: "n"}, LOGITS: {0: "n"}},
    )
    return onnx.load_from_string(file.getvalue())


def _captured(network: nn.Module, images: torch.Tensor) -> Any:
    """By torch's exporter of whole programs: for networks that tracing cannot follow."""
    return torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[IMAGES],
        output_names=[LOGITS],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    ).model_proto


def sealed(proto: Any, metadata: Mapping[str, str]) -> bytes:
    """The file of a ModelProto: the same bytes for the same network, without what exporters note
    of themselves, of source files and of this machine; with `metadata` and nothing else.

    Raises UserError where the ONNX checker refuses it.
    """
    import onnx

    proto.producer_name, proto.producer_version = "", ""
    proto.domain, proto.doc_string, proto.model_version = "", "", 0
    proto.graph.name, proto.graph.doc_string = "network", ""
    del proto.metadata_props[:], proto.graph.metadata_props[:], proto.graph.value_info[:]
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input,
                 *proto.graph.output):  # fmt: skip
        part.doc_string = ""
        del part.metadata_props[:]
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the exported network is no valid ONNX ({reason})") from None
    return proto.SerializeToString(deterministic=True)


def metadata(model: bytes) -> dict[str, Any]:
    """The metadata of an exported network, by key, parsed."""
    import onnx

    props = onnx.load_from_string(model).metadata_props
    return {entry.key: json.loads(entry.value) for entry in props}


def export(
    model: nn.Module,
    normalize: Normalize,
    image_shape: Sequence[int],
    classes: Sequence[str],
    about: Mapping[str, Any],
) -> bytes:
    """An ONNX file: `images` uint8 [n, channels, height, width] in, `logits` float32 [n, classes]
    out, for any n.

    image_shape: (channels, height, width); classes: their names, in the order of the logits;
    about: JSON values for whoever finds the file. The file is run and compared with the network
    before it is returned. Raises UserError where no exporter can express the network.
    """
    pixels = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (CHECKED, *image_shape), generator=pixels, dtype=torch.uint8)
    network = _FromPixels(_portable(model), normalize)
    shape = ", ".join(map(str, image_shape))
    notes = {
        CLASSES: json.dumps(list(classes)),
        ABOUT: json.dumps(
            {
                "input": f"{IMAGES}: uint8 [n, {shape}], 0…255; normalisation is inside",
                "output": f"{LOGITS}: float32 [n, {len(classes)}], in the order of classes",
                **about,
            }
        ),
    }
    with torch.inference_mode():
        wanted = network(images)
    problem = ""
    for exporter in (_traced, _captured):
        try:
            with warnings.catch_warnings():
                # Of its age, and of every branch of a network on sizes: what it made is compared.
                warnings.simplefilter("ignore")
                file = sealed(exporter(network, images[:TRACED]), notes)
            answers = onnx_session.session(file, 1).run(None, {IMAGES: images.numpy()})[0]
        except Exception as error:  # noqa: BLE001 - any network may be named
            problem = problem or (str(error).splitlines() or [type(error).__name__])[0]
            continue
        if answers.shape != wanted.shape:
            problem = problem or f"it answers with {list(answers.shape)}"
            continue
        found = compare(wanted, torch.from_numpy(answers))
        if found.difference <= TOLERANCE * max(1.0, found.largest):
            return file
        problem = problem or f"its logits differ by {found.difference:.2g}"
    raise UserError(f"the network cannot be exported to ONNX ({problem})")
