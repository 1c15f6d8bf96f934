"""Stored predictions, read back without torch, and what is said of files that do not fit."""

import re

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from stages.lib.analysis import predictions
from stages.lib.analysis.predictions import Key
from stages.lib.core import paths
from stages.lib.core.errors import UserError

LABELS = np.array([0, 1, 2, 1], np.int64)


def stored(directory, networks, part="test"):
    file = directory / predictions.FILES[part]
    directory.mkdir(exist_ok=True)
    save_file(networks, file)
    return file


@pytest.mark.parametrize("part", predictions.FILES)
def test_each_seed_is_a_row_and_each_image_a_column(tmp_path, part):
    folders = []
    for seed, classes in enumerate([[0, 1, 2, 0], [2, 1, 2, 1]]):
        one, other = tmp_path / f"one {seed}", tmp_path / f"other {seed}"
        stored(one, {"global-0.8": np.array(classes, np.int64)}, part)
        stored(other, {"affine_tensor-8bit": LABELS, "packed-20x": LABELS}, part)
        folders.append([one, other])
    keys = [Key("global", 0.8), Key("affine_tensor", 0.0, 8), Key("packed", 0.0, 4, 20.0)]
    correct = predictions.correct(folders, part, keys, LABELS)
    assert list(correct) == keys
    assert correct[keys[0]].dtype == bool
    assert correct[keys[0]].tolist() == [[True, True, True, False], [False, True, True, True]]
    assert correct[keys[1]].all()


def test_what_one_seed_lacks_is_left_out(tmp_path):
    stored(tmp_path / "first", {"global-0.8": LABELS, "global-0.9": LABELS})
    stored(tmp_path / "second", {"global-0.8": LABELS})
    keys = [Key("global", 0.8), Key("global", 0.9), Key("iterative", 0.8)]
    folders = [[tmp_path / "first"], [tmp_path / "second"]]
    assert list(predictions.correct(folders, "test", keys, LABELS)) == keys[:1]
    assert predictions.correct([], "test", keys, LABELS) == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (np.array([0, 1, 2], np.int64), r"int64 \[3\] where the 4 images.*delete it and run"),
        (np.array([0, 1, 2, 1], np.int32), r"int32 \[4\].*delete it and run"),
        (None, "not found; run"),
        (b"", "cut short"),
        (save({"global-0.8": LABELS})[:-1], "cut short"),
    ],
)
def test_predictions_for_other_images_and_torn_or_missing_files_are_refused(
    tmp_path, content, told
):
    file = tmp_path / paths.PREDICTIONS
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else save({"global-0.8": content}))
    with pytest.raises(UserError, match=f"{re.escape(str(file))}: .*{told}.*`dvc repro`"):
        predictions.read(file, LABELS)
