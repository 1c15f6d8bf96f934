"""Every benchmark runs, on a setting that takes seconds: what it prints here is no measurement."""

import io
import runpy
import sys
import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.lib.models import checkpoints
from tests import toys
from tests.conftest import ROOT, TINY

# plain_protocol is run by protocol_speed.
SMALL = {
    "gpu_reference": ("--images IMAGES --out OUT --small --seeds 1", "package"),
    "default_run": ("prepare_data", "first dvc repro"),
    "packed_size": ("MODEL", "over bound"),
    "prepare_memory": ("--images 100 --size 16", "peak memory"),
    "protocol_speed": ("--train 100 --width 4 --seeds 1 --busy 0", "iterative 0.9"),
    "scaling": (
        "--params PARAMS --workers 8 --longer 1 -- probe prepare_data train_baseline global_prune",
        "2 arms of 2 stages",
    ),
    "structured_families": ("squeezenet1_1", "masked − small"),
}


def test_every_benchmark_is_run_here():
    benchmarks = {path.stem for path in (ROOT / "tests/benchmarks").glob("*.py")}
    others = {"plain_protocol", "common", "test_benchmarks", "test_scaling"}
    # In tests/compression/test_size_targets.py.
    others |= {"deep_compression"}
    assert benchmarks == {*SMALL, *others}


def archive(file):
    """Writes an archive of three classes of small JPEGs in train/ and test/."""
    random = np.random.default_rng(0)
    with tarfile.open(file, "w:xz") as images:
        for part, count in (("train", 12), ("test", 6)):
            for name in [
                f"{part}/{kind}/{number}.jpg" for kind in "abc" for number in range(count)
            ]:
                pixels, memory = random.integers(0, 256, (16, 16, 3), np.uint8), io.BytesIO()
                Image.fromarray(pixels).save(memory, "jpeg")
                entry = tarfile.TarInfo(name)
                entry.size = memory.tell()
                memory.seek(0)
                images.addfile(entry, memory)


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_its_numbers(monkeypatch, tmp_path, capsys, name):
    arguments, shown = SMALL[name]
    model = tmp_path / "network.safetensors"
    checkpoints.save_model(toys.convnet(), model)
    places = {"MODEL": model, "IMAGES": tmp_path / "images.tar.xz", "OUT": tmp_path / "out"}
    places["PARAMS"] = tmp_path / "params.yaml"
    places["PARAMS"].write_text(yaml.safe_dump(TINY))
    if "IMAGES" in arguments:
        archive(places["IMAGES"])
    words = [str(places.get(word, word)) for word in arguments.split()]
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__")
    assert shown in capsys.readouterr().out
