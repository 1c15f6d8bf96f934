"""Ordinary networks of odd structure: each through the whole tiny pipeline, in this process.

`report` runs for a few of them, which lack what it shows; it takes longer than all other stages.
"""

from pathlib import Path

import pytest
import torch
from conftest import params_with

from stages.lib.compression import storage_sizes
from stages.lib.core import methods, paths, prepared, records
from stages.lib.engines import executors, onnx_session
from stages.lib.evaluation import counting, images, inference, samples
from tests.networks import odd, whole

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


def refused():
    """The reasons by method."""
    lines = {}
    for stage in methods.stages():
        text = (paths.stage_directory(stage, 0) / paths.REFUSED).read_text(encoding="utf-8")
        for line in text.splitlines()[1:]:
            lines[line.split(",")[1]] = line.split(",", 5)[5]
    return lines


def check_files(name):
    """Every file is loaded again and measured; the row says the same."""
    dataset = prepared.load(paths.PREPARED)
    cpu = torch.device("cpu")
    normalize = images.Normalize(dataset.mean, dataset.std, cpu, torch.contiguous_format)
    data = samples.on_device(dataset, cpu, normalize)
    kept = [row for row in rows_of() if row.model]
    assert {Path(row.model).suffix for row in kept} >= {paths.SAFETENSORS, paths.PACKED}
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


@pytest.mark.parametrize("name", odd.STRUCTURES)
def test_the_whole_pipeline_runs_and_its_files_are_as_accurate_as_their_rows(
    prepared_folder, monkeypatch, name, capsys
):
    monkeypatch.chdir(prepared_folder)
    params = params_with(PARAMS)
    params["model"]["name"] = f"{FACTORIES.name}:{name}"
    whole.run(prepared_folder, params, [one for one in whole.STAGES if one != "report"])
    kept = {row.method for row in check_files(params["model"]["name"])}
    lacking = {"structured_layer", "structured_layer_finetune"} - kept
    assert lacking <= refused().keys()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert f"{name} has " in said
