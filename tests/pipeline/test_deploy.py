"""The folder to deploy, copied away from the repository: all that it says, typed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from dvc.repo import Repo
from packaging.requirements import Requirement

from stages.lib.compression import packed
from stages.lib.core import engines, outputs, paths
from stages.lib.deploy import unpack
from stages.lib.engines import executors, onnx_export
from stages.lib.models import checkpoints, registry
from stages.lib.quantization import linear
from tests.compression.test_packed import TIED, quantized_of
from tests.conftest import ALWAYS, ROOT
from tests.pipeline.test_documents import predictions_of

# Writes the logits of all test images, in the pipeline's batches.
EXECUTE = """
import sys, numpy, predict
name, images, target = sys.argv[1:]
network, images = predict.Network(name), numpy.load(images)
batches = [network.logits(images[at:at + 500]) for at in range(0, len(images), 500)]
numpy.save(target, numpy.concatenate(batches))
"""


def link_installed(requirements: list[str], site: Path) -> None:
    """Makes these distributions, as they are installed here, and what they need the only ones that
    a virtual environment has.
    """
    waiting, done = [Requirement(line) for line in requirements], set()
    while waiting:
        wanted = waiting.pop()
        if wanted.name in done or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        done.add(wanted.name)
        found = metadata.distribution(wanted.name)
        assert wanted.specifier.contains(found.version)
        waiting += map(Requirement, found.requires or [])
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))


class Elsewhere:
    """A copy of the folder, and a virtual environment with what its requirements.txt names."""

    def __init__(self, folder: Path, place: Path, installer: str) -> None:
        self.folder = place / "handed over"
        shutil.copytree(folder, self.folder)
        shutil.copy(self.folder / "sample.jpg", self.folder / "photo.jpg")
        self.card = outputs.read_json(folder / paths.MODEL_CARD, "")
        environment = place / "environment"
        venv.create(environment, symlinks=True)
        self.binaries = environment / "bin"
        needed = self.folder / "requirements.txt"
        if installer == "pip":
            command = [sys.executable, "-m", "pip", "--python", str(self.binaries / "python")]
            options = ["install", "--quiet", "--retries", "0", "-r", str(needed)]
            done = subprocess.run([*command, *options], capture_output=True, encoding="utf-8")
            if done.returncode:
                pytest.skip(f"no index of packages ({done.stderr.strip().splitlines()[-1]})")
        else:
            (site,) = environment.glob("lib/*/site-packages")
            link_installed(needed.read_text("utf-8").splitlines(), site)

    def run(self, *command: str) -> str:
        path = f"{self.binaries}{os.pathsep}{os.environ['PATH']}"
        here = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            command, cwd=self.folder, env=here | {"PATH": path}, capture_output=True,
            encoding="utf-8",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, *arguments: str) -> str:
        return self.run(str(self.binaries / "python"), *arguments)


@pytest.fixture(scope="module", params=["installed", "pip"])
def elsewhere(tiny, tmp_path_factory, request):
    return Elsewhere(tiny.path / paths.DEPLOY, tmp_path_factory.mktemp("far"), request.param)


def test_what_its_page_says_works_and_answers_as_the_pipeline_does(tiny, elsewhere, tmp_path):
    page = (elsewhere.folder / "README.md").read_text("utf-8")
    commands, program = re.findall(r"```(?:sh|python)\n(.*?)```", page, re.DOTALL)
    # What it says to install is there.
    said = elsewhere.run("bash", "-e", "-c", "pip() { :; }\n" + commands)
    assert "NOT" not in said
    networks = [one["chosen"]["onnx"]["file"] for one in chosen(elsewhere.card)]
    assert all(f"{name}: as measured" in said for name in networks)
    label = re.search("^photo.jpg\t(.*)\t", said, re.MULTILINE)[1]
    assert elsewhere.python("-c", program).strip() == label
    for one in chosen(elsewhere.card):
        file, name = elsewhere.folder / one["chosen"]["file"], one["chosen"]["onnx"]["file"]
        images, target = tiny.path / "data/prepared/test_images.npy", tmp_path / f"{name}.npy"
        elsewhere.python("-c", EXECUTE, name, str(images), str(target))
        logits, predicted = np.load(target), predictions_of(tiny, file)
        if file.name == name:
            engine = engines.ENGINES[one["chosen"]["engine"]]
            execute = executors.load(engine, file.read_bytes(), 1, name)
            expected = executors.logits(execute, torch.from_numpy(np.load(images)), 500)
            assert logits.tobytes() == expected.numpy().tobytes()
            if engine is engines.of_file(name)[0]:  # with which the pipeline predicted
                assert np.array_equal(logits.argmax(1), predicted)
        else:  # torch and ONNX Runtime round differently: only ties may fall otherwise
            least = onnx_export.TOLERANCE * max(1, np.abs(logits).max())
            margins = np.diff(np.sort(logits)[:, -2:])[:, 0]
            clear = margins > 2 * least
            assert clear.mean() > 0.5
            assert np.array_equal(logits.argmax(1)[clear], predicted[clear])


def chosen(card: dict) -> list[dict]:
    return [card[role] for role in ("smallest", "fastest") if card[role]["chosen"]]


def test_its_page_begins_as_hugging_face_wants_it_and_has_the_intervals(tiny):
    folder = tiny.path / paths.DEPLOY
    card = outputs.read_json(folder / paths.MODEL_CARD, "")
    _, front, page = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["pipeline_tag"], about["library_name"]) == ("image-classification", "onnx")
    by_name = {one["name"]: one["results"] for one in about["model-index"]}
    assert by_name.keys() == {one["chosen"]["file"] for one in chosen(card)}
    for one in chosen(card):
        test = one["chosen"]["test"]
        (result,) = by_name[one["chosen"]["file"]]
        assert result["task"]["type"] == "image-classification"
        assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
        (metric,) = result["metrics"]
        assert (metric["type"], metric["value"]) == ("accuracy", test["accuracy"])
        assert f"{test['low']} to {test['high']}" in metric["name"]
        ends = (100 * test[end] for end in ("accuracy", "low", "high"))
        assert "{:.1f} % ({:.1f}–{:.1f})".format(*ends) in page
    files = {file.name for file in folder.iterdir()}
    listed = re.findall(r"^\| (\S+) +\|", page.partition("## Files")[2], re.MULTILINE)
    assert {name.replace("\\", "") for name in listed} - {"file"} == files
    classes = (folder / "labels.txt").read_text("utf-8").splitlines()
    assert classes == card["data"]["classes"]


def test_what_is_unpacked_in_the_folder_makes_no_stage_run_again(tiny, monkeypatch):
    monkeypatch.chdir(tiny.path)
    unpacked = paths.DEPLOY / f"smallest{paths.UNPACKED}"
    unpacked.write_bytes(b"weights")
    try:
        assert set(Repo().status()) <= ALWAYS
    finally:
        unpacked.unlink()


def places_in(folder: Path, *places: Path) -> set[str]:
    """The files that say where something of this machine lies, also inside what is deflated."""
    found = set()
    for file in folder.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        if file.suffix == paths.PACKED:
            data += unpack.opened(data)[0]
        if any(str(place).encode() in data for place in places):
            found.add(file.name)
    return found


def test_nothing_that_is_handed_over_says_where_it_was_made(tiny):
    places = (tiny.path, ROOT, Path(sys.prefix), Path(tempfile.gettempdir()), Path.home())
    for folder in (paths.DEPLOY, paths.REPORTS):
        assert places_in(tiny.path / folder, *places) == set()


def test_files_of_a_network_of_ones_own_say_its_name_and_not_where_it_lies(tmp_path):
    """They are read where its code is named."""
    code = tmp_path / "nets/mine.py"
    code.parent.mkdir()
    code.write_text(TIED, encoding="utf-8")
    name = f"{code}:Network"
    model = registry.build_seeded(registry.architecture(name, 0, 1, 3, (8, 8)), 0).eval()
    folder, quantized = tmp_path / "files", quantized_of(model)
    folder.mkdir()
    checkpoints.save_model(model, folder / "float.safetensors")
    linear.save_model(folder / "integers.safetensors", model, quantized)
    packed.save(folder / "x.packed", model, quantized)
    assert places_in(folder, tmp_path) == set()
    for again in (
        checkpoints.load_model(folder / "float.safetensors", network=name),
        checkpoints.load_model(folder / "float.safetensors", registry.architecture_of(model)),
        linear.load_model(folder / "integers.safetensors", name)[0],
        packed.load(folder / "x.packed", name)[0],
    ):
        assert registry.architecture_of(again) == registry.architecture_of(model)


def test_what_it_needs_is_pinned_to_what_was_measured(tiny):
    lines = (tiny.path / paths.DEPLOY / "requirements.txt").read_text("utf-8").splitlines()
    pins = (tiny.path / "requirements.txt").read_text("utf-8").splitlines()
    assert {"numpy", "pillow", "onnxruntime"} <= {line.partition("==")[0] for line in lines}
    assert all(line == f"{name}=={metadata.version(name)}"
               for line in lines for name in [line.partition("==")[0]])  # fmt: skip
    assert len(lines) < len(pins)
