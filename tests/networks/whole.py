"""The whole tiny pipeline in this process, for many networks."""

import os
import runpy
import sys
from pathlib import Path

import numpy as np
import yaml

from stages.lib.core import engines, hardware, methods, outputs, paths, pipeline, prepared
from tests import toys

FILES = ("dvc.yaml", "probe/dvc.yaml", "requirements.txt")
STAGES = ("train_teacher", *methods.stages(), "dtype_bench", "latency_bench", "package", "report")
ROOT = Path(__file__).resolve().parents[2]


def images(channels: int, size: int) -> dict[str, prepared.Part]:
    """A separable set of three classes, enlarged to `size` pixels."""
    parts = {}
    for seed, (name, count) in enumerate({"train": 48, "validation": 24, "test": 24}.items()):
        part = toys.halves(count, seed)
        pixels = part.images.expand(-1, channels, -1, -1).numpy()
        pixels = np.kron(pixels, np.ones((size // 8, size // 8), np.uint8))
        parts[name] = prepared.Part(np.ascontiguousarray(pixels), part.labels.numpy())
    return parts


def prepare(folder: Path, channels: int = 3, size: int = 8, trains: bool = True) -> None:
    """What the stages before train_baseline would leave, without the real probe and images.

    trains: whether there are training images.
    """
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "stages").symlink_to(ROOT / "stages")
    for path in (paths.PREPARED, paths.INPUT_MODEL.parent, paths.REPORTS):
        (folder / path).mkdir(parents=True)
    parts = images(channels, size)
    if not trains:
        parts["train"] = parts["validation"]
    prepared.write(
        folder / paths.PREPARED, parts, ["above", "below", "dark"], "digits",
        without_training_images=not trains,
    )  # fmt: skip
    outputs.write_json(folder / paths.HARDWARE, hardware.describe())
    # Without OpenVINO, which is tried elsewhere: it takes a second to import.
    outputs.write_json(folder / paths.ENGINES, dict.fromkeys(engines.installed()))
    outputs.write_json(folder / paths.INPUT_MODEL, {})


def run(folder: Path, params: dict, stages=STAGES) -> None:
    """Runs the stages in `folder`, which is the working directory meanwhile."""
    (folder / paths.PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")
    before, arguments = Path.cwd(), sys.argv
    os.chdir(folder)
    try:
        for name in stages:
            sys.argv = ["", *(["--seed", "0"] if pipeline.declared(name).per_seed else [])]
            runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
    finally:
        os.chdir(before)
        sys.argv = arguments
