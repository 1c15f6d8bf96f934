"""Makes kept networks run without this repository: an ONNX file beside the weights.

The graph holds no weights but a few small ones. It points into a safetensors file: the kept one, or
that which unpack.py writes from a file of integer weights.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import external_data_helper, numpy_helper
from torch import nn

from stages.lib.core import outputs, paths
from stages.lib.core.errors import UserError
from stages.lib.deploy import unpack
from stages.lib.engines import onnx_export
from stages.lib.evaluation.samples import Samples
from stages.lib.models import checkpoints, registry, skeletons

# The names that safetensors gives to types.
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

# ONNX Runtime reads axes, shapes and factors of resizing while it loads the graph: tensors of
# integers or of few numbers, which stay in it even if some weights have the same bytes.
FEW = 8


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor, row-major."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def layout(model: nn.Module, packed: Path) -> dict[str, Any]:
    """What unpack.py must know of a network, as its packed file names nothing: the header of the
    safetensors file to write, with the tensors in the order of the state dict; the number of
    integers in the unpruned network's modules and shapes (docs/packed-format.md); both files.
    """
    tensors = checkpoints.tensors_of(model)
    odd = [name for name, tensor in tensors.items() if tensor.dtype not in DTYPES]
    if odd:
        raise UserError(f"{odd[0]} is {tensors[odd[0]].dtype}, which unpack.py does not read")
    # Wide types first, so that each lies at a multiple of its size.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    offsets, end = {}, 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        offsets[name] = [start, end]
    header = {
        name: {
            "dtype": DTYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": offsets[name],
        }
        for name, tensor in tensors.items()
    }  # fmt: skip
    skeleton = skeletons.of(registry.architecture_of(model))
    return {
        "packed": packed.name,
        "weights": packed.with_suffix(paths.UNPACKED).name,
        "integers": len(skeleton.numbers({}, skeleton.shapes.values())),
        "header": {"__metadata__": {"format": "pt"}, **header},
    }


def _pointing(proto: onnx.ModelProto, tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Replaces the values of the graph that are also tensors of a safetensors file by pointers to
    there, in place.
    """
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    places = {
        (header[name]["dtype"], tensor_bytes(tensor)): header[name]["data_offsets"]
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.numel() > FEW
    }
    for value in proto.graph.initializer:
        array = numpy_helper.to_array(value)
        dtype = DTYPES.get(getattr(torch, str(array.dtype), None))
        if (dtype, array.tobytes()) not in places:
            continue
        first, last = places[dtype, array.tobytes()]
        value.ClearField("float_data")
        value.raw_data = array.tobytes()
        external_data_helper.set_external_data(
            value, file.name, offset=start + first, length=last - first
        )
        value.ClearField("raw_data")


def write(
    model: nn.Module,
    weights: Path,
    target: Path,
    samples: Samples,
    classes: Sequence[str],
    about: Mapping[str, Any],
) -> None:
    """Writes the ONNX file of a network without the tensors that lie in `weights`, a safetensors
    file in the same folder. Options and errors are those of `onnx_export.export`.
    """
    file = onnx_export.export(model, samples, classes, about, folded=False)
    proto = onnx.load_from_string(file)
    _pointing(proto, checkpoints.tensors_of(model), weights)
    target.write_bytes(proto.SerializeToString(deterministic=True))


def make_runnable(
    model: nn.Module,
    file: Path,
    integer: bool,
    samples: Samples,
    classes: Sequence[str],
    about: Mapping[str, Any],
) -> list[Path]:
    """Adds the files with which a copied file runs on ONNX Runtime: its graph, for a file of
    integer weights also its layout and, until they are removed, the unpacked weights. Returns the
    graph, then the others.

    file: a packed network or a safetensors file, in the folder to hand over.
    integer: whether unpack.py must read it.
    """
    weights, added = file, []
    if integer:
        described = file.with_suffix(paths.LAYOUT)
        outputs.write_json(described, layout(model, file))
        weights = unpack.unpack(described)
        added = [described, weights]
        stored, _ = checkpoints.load_tensors(weights)
        state = checkpoints.tensors_of(model)
        if any(
            tensor_bytes(stored[name]) != tensor_bytes(tensor) for name, tensor in state.items()
        ):
            raise RuntimeError(f"{file}: unpack.py and the pipeline read other weights from it")
    graph = file.with_suffix(paths.ONNX)
    write(model, weights, graph, samples, classes, about)
    return [graph, *added]
