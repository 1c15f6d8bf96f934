"""A network that brings its weights, and images for validation and test alone."""

import contextlib
import io
import re

import pytest
import torch

from stages.lib.analysis import tables
from stages.lib.core import methods, outputs, paths, records
from stages.lib.core.records import NO_TRAINING_IMAGES
from tests import toys
from tests.conftest import params_with
from tests.networks import test_odd, whole

# Those that change no weight by training.
UNTRAINED = {
    "baseline", "layer_alone", "uniform", "best_per_layer", "global", "structured_layer",
    "affine_tensor", "onnx_baseline_float32", "onnx_baseline_int8",
}  # fmt: skip
UNTRAINED |= {one.name for one in methods.of_stage("controls") if one.criterion}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    whole.prepare(folder, trains=False)
    torch.save(toys.convnet(in_channels=3).state_dict(), folder / "given.pt")
    params = params_with(test_odd.PARAMS)
    params["model"] |= {"width": 4, "weights": "given.pt"}
    params["train_baseline"]["epochs"] = 0
    params["teacher"] |= {"name": "convnet", "width": 6, "epochs": 1}
    params["controls"] = {"finetuned": ["baseline", "uniform"], "equal_budget": "all"}
    params["compress"]["arms"] = ["both", "baseline"]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(folder)
        whole.run(folder, params)
    (folder / "said.txt").write_text(said.getvalue())
    return folder


def test_what_trains_is_a_row_with_its_reason_and_the_rest_is_measured(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    refused = test_odd.refused()
    assert set(refused.values()) == {NO_TRAINING_IMAGES}
    assert refused.keys() == {
        "finetune", "iterative", "baseline_finetune", "uniform_finetune", "baseline_long",
        "finetune_long", "structured_layer_finetune", "packed", "baseline_taught",
    }  # fmt: skip
    rows = list(test_odd.rows_of())
    assert {row.method for row in rows} == UNTRAINED
    assert not any(row.extra_epochs for row in rows)
    test_odd.check_files("convnet")


def test_the_terminal_and_the_report_say_so(evaluated):
    said = (evaluated / "said.txt").read_text()
    assert "goes on" not in said
    assert re.search(r"train_teacher +1 could not be made, ", said)
    assert re.search(r"finetune@0 +1 could not be made, ", said)
    assert re.search(r"structured_prune@0 +[\d.]+ % validation, 1 could not be made, ", said)
    told = (evaluated / paths.REPORT_MARKDOWN).read_text(encoding="utf-8")
    assert "there are no training images, so that nothing was trained" in told
    assert tables.escaped(NO_TRAINING_IMAGES) in told
    assert re.search(r"\n\| teacher +\|", told)
    chosen = outputs.read_json(evaluated / "artifacts/package" / paths.SELECTION, records.REMEDY)
    assert chosen["recommended"]["smallest"]["choice"]
