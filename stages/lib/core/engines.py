"""The registry of engines that execute networks. Timing, accuracy as executed, charts, the
selection and the model card read this registry.

A new engine is an entry of ENGINES and, if it executes ONNX files, a module of stages/lib/engines.
"""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from stages.lib.core import outputs, paths
from stages.lib.core.errors import UserError
from stages.lib.core.methods import INK, Look

REMEDY = "run `dvc repro probe/dvc.yaml`"


class Engine(NamedTuple):
    """An engine.

    name: as in a latency's `engine`; of an optional engine also the name of its package.
    title: its name for people.
    suffix: of the files that it executes.
    module: of stages/lib/engines, whose function `load` reads such a file; empty for torch.
    load: the call that reads an ONNX file, for the model card.
    look: in charts.
    requirements: the file that installs an optional engine; None for those of requirements.txt.
    """

    name: str
    title: str
    suffix: str
    module: str
    load: str
    look: Look
    requirements: Path | None = None


# Of the engines of a suffix, the first measures the accuracies in the rows.
ENGINES = {
    one.name: one
    for one in (
        Engine("torch", "torch", paths.SAFETENSORS, "", "", Look(INK, "circle")),
        Engine("onnxruntime", "ONNX Runtime", paths.ONNX, "onnx_session",
               "onnxruntime.InferenceSession(path)", Look("#7A52C7", "triangle-right")),
        Engine("openvino", "OpenVINO", paths.ONNX, "openvino_session",
               'openvino.compile_model(path, "CPU")', Look("#0072B2", "triangle-left"),
               paths.OPENVINO_REQUIREMENTS),
    )
}  # fmt: skip
Versions = Mapping[str, str | None]


def of_file(file: str) -> list[Engine]:
    """The engines that execute a file, judged by its suffix. Packed files and files of integers are
    unpacked first and have none.
    """
    return [one for one in ENGINES.values() if one.suffix == Path(file).suffix]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed() -> Versions:
    """The version of each optional engine; None if it is not installed."""
    return {one.name: _version(one.name) for one in ENGINES.values() if one.requirements}


def versions() -> Mapping[str, str]:
    """The version of each engine that is installed."""
    found = {one.name: _version(one.name) for one in ENGINES.values()}
    return {name: version for name, version in found.items() if version}


def read(path: Path) -> Versions:
    """Reads what `installed` said from its file. UserError if it is missing or damaged."""
    versions = outputs.read_json(path, REMEDY)
    if not isinstance(versions, dict) or versions.keys() != installed().keys():
        raise UserError(f"{path}: not the versions of engines; {REMEDY}")
    return versions


def missing(engine: Engine, versions: Versions) -> str:
    """Why an engine cannot be used; empty if it can."""
    if versions.get(engine.name, "") is not None:
        return ""
    return f"{engine.title} is not installed (pip install -r {engine.requirements})"
