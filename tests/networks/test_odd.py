"""Ordinary networks of odd structure: each through the whole tiny pipeline, in this process.

`report` runs for a few of them, which lack what it shows; it takes longer than all other stages.
"""

import csv
import os
from pathlib import Path

import pytest
import torch

from stages.lib.analysis import tables
from stages.lib.compression import storage_sizes
from stages.lib.core import methods, paths, prepared, records
from stages.lib.engines import executors, onnx_export, onnx_files, onnx_session
from stages.lib.evaluation import counting, images, inference, samples
from tests.conftest import params_with
from tests.networks import odd, timm_networks, whole

FACTORIES = Path(odd.__file__)
PARAMS = {
    "seeds": [0], "sparsities": [0.5],
    "compute": {"device": "cpu", "threads": 1, "precision": "float32"},
    "engine": {"workers": 1}, "training": {"batch_size": 12},
    "train_baseline": {"epochs": 2},
    "finetune": {"epochs": 1},
    "iterative_prune": {"target": 0.5, "step": 0.5, "epochs_per_step": 1},
    "structured_prune": {
        "sparsities": [0.3], "scopes": ["layer"], "multiple_of": 1, "epochs": 1,
    },
    "controls": {"finetuned": [], "equal_budget": []},
    "compress": {"arms": ["both"], "times_smaller": [2.0], "epochs": 1},
    "dtype_bench": {
        "networks": ["baseline"], "dtypes": ["float32", "bfloat16"], "seconds": 0.001,
    },
    "latency_bench": {"batch_sizes": [1], "seconds": 0.0005},
    "int_quantize": {
        "bits": [8], "schemes": ["affine"], "granularities": ["tensor"], "store_bits": [8],
    },
    "export_onnx": {
        "structured_scopes": "all", "structured_sparsities": "all", "calibration": ["minmax"],
        "calibration_images": 16,
    },
    "package": {"max_accuracy_drop": 0.2},
    "report": {"sparsity": 0.5},
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    whole.prepare(folder)
    (folder / FACTORIES.name).write_bytes(FACTORIES.read_bytes())
    return folder


def rows_of(stages=None):
    for stage in stages or methods.stages():
        yield from records.read(paths.stage_directory(stage, 0) / paths.ROWS)


def refused(stages=None):
    """The reasons by method."""
    lines = {}
    for stage in stages or methods.stages():
        table = paths.stage_directory(stage, 0) / paths.REFUSED
        with table.open(encoding="utf-8", newline="") as file:
            lines |= {line["method"]: line["reason"] for line in csv.DictReader(file)}
    return lines


def check_files(name, stages=None):
    """Every file is loaded again and measured; the row says the same."""
    dataset = prepared.load(paths.PREPARED)
    cpu = torch.device("cpu")
    normalize = images.Normalize(dataset.mean, dataset.std, cpu, torch.contiguous_format)
    data = samples.on_device(dataset, cpu, normalize)
    kept = [row for row in rows_of(stages) if row.model]
    assert kept
    for row in kept:
        file = Path(row.model)
        assert file.stat().st_size == row.bytes_on_disk
        if file.suffix == paths.ONNX:
            execute = onnx_session.load(file.read_bytes(), 1, file.name)
            logits = executors.logits(execute, data.test.images, 24)
            accuracy = inference.share_correct(logits.argmax(1), data.test.labels)
        else:
            network = storage_sizes.load(row, name)[0].eval()
            accuracy = inference.accuracy(network, data.test)
            assert counting.nonzero_parameters(network) == row.nonzero_parameters
            assert counting.macs(network, data.image_shape) == row.macs
        assert accuracy == pytest.approx(row.test_accuracy, abs=1e-6), row.model
    return kept


# What ended a run, or lied. The others take a minute more.
KNOWN = (
    "scaled_residual", "hard_swish_by_hand", "padded", "inverted_gate", "viewed", "viewed_weight",
    "strided_memory", "writes_into_its_images", "keeps_its_features", "caches_positions",
    "notices_changes", "frozen_stem", "lazy", "complex_filter", "standardized_weights",
    "weight_normed", "masked_already", "tied", "einsum_of_a_layer", "names_that_are_markers",
    "strided_by_function", "data_parallel", "checkpointed", "branches_on_data",
    "group_norms_alone", "recurrent", "pixel_shuffled", "flat_convolution",
)  # fmt: skip


@pytest.mark.parametrize("name", odd.STRUCTURES if os.environ.get("ALL_NETWORKS") else KNOWN)
def test_the_whole_pipeline_runs_and_its_files_are_as_accurate_as_their_rows(
    prepared_folder, monkeypatch, name, capsys
):
    monkeypatch.chdir(prepared_folder)
    params = params_with(PARAMS)
    params["model"]["name"] = f"{FACTORIES.name}:{name}"
    whole.run(prepared_folder, params, [one for one in whole.STAGES if one != "report"])
    kept = {row.method for row in check_files(params["model"]["name"])}
    assert "packed" in kept
    lacking = {"structured_layer", "structured_layer_finetune"} - kept
    assert lacking <= refused().keys()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert f"{name} has " in said


def no_operator(*arguments):
    raise RuntimeError("no such operator")


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("group_norms_alone", {}, "a group norm runs over its channels"),
        ("inverted_gate", {}, "cannot be exported to ONNX (no such operator)"),
        ("scaled_residual", {"structured_prune": {"sparsities": [], "scopes": []}}, None),
        ("branches_on_data", {"export_onnx": {"least_agreement": 1.0}}, None),
    ],
)
def test_the_report_shows_what_could_not_be_made_and_why(
    prepared_folder, monkeypatch, name, changes, told
):
    monkeypatch.chdir(prepared_folder)
    params = params_with(PARAMS)
    if told and "ONNX" in told:
        for exporter in ("_traced", "_captured"):
            monkeypatch.setattr(onnx_export, exporter, no_operator)
    for section, values in changes.items():
        params[section] |= values
    params["model"]["name"] = f"{FACTORIES.name}:{name}"
    whole.run(prepared_folder, params)
    text = paths.REPORT_MARKDOWN.read_text(encoding="utf-8")
    assert ("## What could not be made" in text) == bool(refused())
    if told:
        assert tables.escaped(told) in text
        assert told in paths.REPORT_PAGE.read_text(encoding="utf-8")


def test_a_file_that_does_not_agree_with_torch_is_no_candidate(prepared_folder, monkeypatch):
    """None agrees on more images than there are."""
    monkeypatch.chdir(prepared_folder)
    params = params_with(PARAMS)
    params["model"]["name"] = f"{FACTORIES.name}:sampled_by_a_grid"
    stages = [one for one in whole.STAGES if one not in ("report", "latency_bench", "package")]
    monkeypatch.setattr(onnx_files.inference, "share_correct", lambda *_: 0.5)
    whole.run(prepared_folder, params, stages)
    rows = list(rows_of(["export_onnx"]))
    assert rows
    assert not any(row.model for row in rows)
    assert not list(paths.stage_directory("export_onnx", 0).glob("*.onnx"))
    assert "export_onnx.least_agreement asks for 80.0 %" in refused()["onnx_baseline_float32"]


@pytest.mark.parametrize("name", timm_networks.FAMILIES)
def test_timms_families_are_trained_pruned_and_quantized(tmp_path, monkeypatch, name):
    """Without the stages that only train longer, removing filters, and ONNX."""
    whole.prepare(tmp_path, size=32)
    monkeypatch.chdir(tmp_path)
    source = Path(timm_networks.__file__)
    (tmp_path / source.name).write_bytes(source.read_bytes())
    params = params_with(PARAMS)
    params["model"]["name"] = f"{source.name}:{name}"
    params["train_baseline"]["epochs"] = 1
    stages = ("train_baseline", "global_prune", "int_quantize")
    whole.run(tmp_path, params, stages)
    kept = {row.method for row in check_files(params["model"]["name"], stages)}
    assert {"baseline", "global", "affine_tensor"} <= kept
