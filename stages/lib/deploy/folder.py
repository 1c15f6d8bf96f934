"""Makes the folder to hand over: the recommended files, and all that runs them elsewhere."""

import hashlib
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from stages.lib.analysis.selection import Choice
from stages.lib.compression import storage_sizes
from stages.lib.core import normalization, outputs, paths, prepared
from stages.lib.core.errors import UserError
from stages.lib.core.params import Model
from stages.lib.core.records import Row
from stages.lib.deploy import graphs, predict, sample, unpack
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.samples import Samples

# The test images on which graphs are checked, and of which one becomes the sample.
IMAGES = 100


def copy(choices: Mapping[str, Choice], folder: Path) -> dict[str, str]:
    """Copies the chosen files into the folder: the SHA-256 of each role that has one."""
    hashes = {}
    for role, choice in choices.items():
        if choice.candidate:
            source = Path(choice.candidate.shipped.model)
            copied = folder / f"{role}{source.suffix}"
            # Without its permissions: files in DVC's cache are read-only.
            shutil.copyfile(source, copied)
            hashes[role] = hashlib.sha256(copied.read_bytes()).hexdigest()
    return hashes


def made_runnable(
    network: str, row: Row, file: Path, samples: Samples, classes: list[str]
) -> dict[str, Any]:
    """Adds to a copied file what ONNX Runtime needs to execute it: the card's words about that."""
    about = {"file": file.name, "bytes": None, "layout": None, "unpacked": None, "note": None}
    if file.suffix == paths.ONNX:
        return about
    model, quantized = storage_sizes.load(row, network)
    try:
        notes = {"method": row.method, "seed": row.seed}
        graph, *more = graphs.make_runnable(model, file, bool(quantized), samples, classes, notes)
        predict.Network(graph)
    except (UserError, predict.ProblemError) as error:
        file.with_suffix(paths.ONNX).unlink(missing_ok=True)
        return about | {"file": None, "note": str(error)}
    layout, unpacked = (one.name for one in more) if more else (None, None)
    told = {"file": graph.name, "bytes": graph.stat().st_size}
    return about | told | {"layout": layout, "unpacked": unpacked}


def fill(
    folder: Path,
    card: dict[str, Any],
    rows: Mapping[str, Row],
    network: Model,
    data: prepared.Dataset,
) -> None:
    """Adds to the copied files and the card all else that belongs into the folder, but its page.

    rows: of the copied file of each role.
    network: the params section.
    """
    images, labels = data.test.images[:IMAGES].copy(), data.test.labels[:IMAGES]
    mean, std = normalization.of(network.normalize, data.mean, data.std)
    pixels, truth = torch.from_numpy(images), torch.from_numpy(labels.copy())
    samples = Samples(pixels, truth, Normalize(mean, std, torch.device("cpu")))
    runnable, needed = {}, ["numpy", "pillow", "onnxruntime"]
    for role, row in rows.items():
        chosen = card[role]["chosen"]
        file = folder / chosen["file"]
        chosen["onnx"] = about = made_runnable(network.name, row, file, samples, data.classes)
        if about["file"]:
            runnable[about["file"]] = row.weight_bits < 32 and file.suffix == paths.ONNX
        needed += ["constriction"] * (file.suffix == paths.PACKED)
        needed += [chosen["engine"]] * (chosen["engine"] == predict.OPENVINO)
    # It says in which engine a network is executed.
    outputs.write_json(folder / paths.MODEL_CARD, card)
    if runnable:
        sample.write(folder, runnable, images, labels)
    for unpacked in folder.glob(f"*{paths.UNPACKED}"):
        unpacked.unlink()
    for program in (predict, unpack):
        shutil.copyfile(program.__file__, folder / Path(program.__file__).name)
    pins = [f"{name}=={metadata.version(name)}\n" for name in dict.fromkeys(needed)]
    outputs.write_text(folder / paths.REQUIREMENTS, "".join(pins))
    labels = [f"{' '.join(name.split())}\n" for name in data.classes]
    outputs.write_text(folder / paths.LABELS, "".join(labels))
