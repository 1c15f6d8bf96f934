"""The ready configuration for photos, on few photos and with single epochs: all of its stages."""

import sys
from pathlib import Path

import numpy as np
import yaml

from stages import prepare_data
from stages.lib.core import outputs, paths
from stages.lib.core.methods import METHODS
from stages.lib.core.pipeline import stages
from stages.lib.core.stage import run_stage
from tests.conftest import ROOT, Repository
from tests.data.test_torchvision_sets import put_eurosat
from tests.pipeline.test_deploy import places_in

# What takes long, wherever it stands.
SHORT = {
    "epochs": 1, "epochs_per_step": 1, "seconds": 0.01, "validation_images": 10, "test_images": 10,
    "calibration_images": 8, "agreement_images": 2,
}  # fmt: skip


def shortened(file: Path) -> dict:
    """The params of a file, with the same sections and keys."""
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    for section in values.values():
        if isinstance(section, dict):
            section |= {key: value for key, value in SHORT.items() if key in section}
    return values


def test_the_configuration_for_photos_goes_through_every_stage(tmp_path, monkeypatch):
    """From the files as torchvision gets them to a folder that labels one of them."""
    values = shortened(ROOT / "params/photos.yaml")
    values["data"]["root"] = str(tmp_path / "photos" / values["data"]["root"])
    repository = Repository(tmp_path / "photos", values)
    put_eurosat(repository.path / "data/raw", monkeypatch)
    repository.stages("probe")
    monkeypatch.chdir(repository.path)
    run_stage(prepare_data.main, name="prepare_data", argv=[])
    repository.stages(*(name for name in stages() if name not in ("probe", "prepare_data")))
    folder = repository.path / paths.DEPLOY
    card = outputs.read_json(folder / paths.MODEL_CARD, "")
    assert card["data"]["image_shape"] == [3, 32, 32]
    assert card["smallest"]["chosen"]["method"] in METHODS
    photos = sorted((repository.path / "data/raw/eurosat/2750").glob("*/*.jpg"))
    for command in (["unpack.py"], ["predict.py", "--model", "smallest.onnx", str(photos[0])]):
        done = repository.run(sys.executable, str(folder / command[0]), *command[1:])
        assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[1] in card["data"]["classes"]
    for handed_over in (paths.DEPLOY, paths.REPORTS):
        assert places_in(repository.path / handed_over, tmp_path) == set()
    assert np.load(paths.PREPARED / "test_images.npy").shape == (10, 3, 32, 32)
