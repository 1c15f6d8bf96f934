"""The ONNX files of one seed: which there are, by which calibration, and why one is not there."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from stages.lib.core import engines, methods, outputs, paths, records
from stages.lib.core.errors import UserError
from stages.lib.engines import adaptive_rounding, executors, onnx_export, onnx_files, onnx_int8
from stages.lib.evaluation import counting, results
from stages.lib.evaluation.evaluator import Evaluator
from tests import toys

ALL = ["minmax", "entropy", "percentile"]
ABSENT = {"openvino": None}
INT8 = onnx_files.Int8(8, 99.0)


@pytest.fixture
def collect(tmp_path):
    """Exports a baseline and a fine-tuned network: rows and agreements by method."""

    def run(calibrations=ALL, versions=ABSENT, engine="onnxruntime", int8=INT8):
        data = toys.data()
        model, other = toys.lived_in(toys.convnet()), toys.lived_in(toys.convnet(), seed=1)
        evaluator = Evaluator(0, data, counting.prunable_weights(model))
        sources = [
            onnx_files.Source(evaluator.row(model, "baseline")[0], model),
            onnx_files.Source(evaluator.row(other, "finetune", target_sparsity=0.5)[0], other),
        ]
        kept = results.Results(tmp_path, tmp_path, evaluator)
        images = onnx_files.calibration_samples(data, 10, 0)
        files = onnx_files.Collection(kept, images, int8, 1, versions)
        files.add_all(sources, calibrations)
        kept.write()
        outputs.write_csv(tmp_path / paths.AGREEMENT, records.AGREEMENT, files.agreements)
        rows = {row.method: row for row in records.read(tmp_path / paths.ROWS)}
        assert {Path(row.model).name for row in rows.values()} == {
            path.name for path in tmp_path.glob("*.onnx")
        }
        lines = [line for line in files.agreements if line.get("engine", engine) == engine]
        assert len({line["method"] for line in lines}) == len(lines)
        return rows, {line["method"]: line for line in lines}

    return run


FOUR = [f"onnx_{name}_{kind}" for name in ("baseline", "finetune") for kind in ("float32", "int8")]


@pytest.mark.parametrize("calibrations", [["entropy"], ALL])
def test_the_best_calibration_of_the_baseline_is_that_of_all(collect, tmp_path, calibrations):
    rows, agreements = collect(calibrations)
    each = [f"onnx_baseline_int8_{name}" for name in calibrations if len(calibrations) > 1]
    assert sorted(rows) == sorted([*FOUR, *each])
    assert set(rows) == set(agreements)
    assert not any(line["note"] for line in agreements.values())
    files = {method: (tmp_path / Path(row.model).name).read_bytes() for method, row in rows.items()}
    about = {method: onnx_export.metadata(file)["about"] for method, file in files.items()}
    chosen = {method: notes.get("calibration") for method, notes in about.items()}
    assert chosen["onnx_finetune_int8"] == chosen["onnx_baseline_int8"]
    if each:
        best = max(each, key=lambda method: rows[method].validation_accuracy)
        assert chosen["onnx_baseline_int8"] == chosen[best]
        assert files["onnx_baseline_int8"] == files[best]
        assert rows["onnx_baseline_int8"].test_accuracy == rows[best].test_accuracy


@pytest.mark.parametrize(
    ("module", "function", "refused", "left", "noted"),
    [
        (onnx_export, "export", 1, FOUR[2:], FOUR[:1]),
        (onnx_int8, "quantize", 4, FOUR[::2], FOUR[1::2]),
    ],
    ids=["no float32", "no int8"],
)
def test_a_file_that_cannot_be_made_has_a_line_that_says_why(
    collect, monkeypatch, module, function, refused, left, noted
):
    real, calls = getattr(module, function), []

    def refuses(*arguments):
        calls.append(arguments)
        if len(calls) <= refused:
            raise UserError("a reason")
        return real(*arguments)

    monkeypatch.setattr(module, function, refuses)
    rows, agreements = collect()
    assert sorted(rows) == left
    assert sorted(agreements) == sorted(left + noted)
    for method, line in agreements.items():
        assert line["note"] == ("a reason" if method in noted else "")
        assert ("agreement" in line) == (method in left)


def test_layers_stay_in_float32_until_the_budget_is_met_the_noisiest_first(collect, tmp_path):
    def kept(max_drop):
        rows, _ = collect(["minmax"], int8=onnx_files.Int8(8, 99.0, max_drop=max_drop))
        file = (tmp_path / Path(rows["onnx_baseline_int8"].model).name).read_bytes()
        return onnx_export.metadata(file)["about"].get("float32_layers", [])

    # No file is better than its network by more than everything: all layers are tried.
    every = kept(-1.0)
    assert len(every) == len(set(every)) > 3
    assert kept(onnx_files.NO_BUDGET) == []
    assert kept(0.5) == []


@pytest.mark.parametrize("improvement", methods.IMPROVEMENTS)
def test_an_improvement_is_told_in_the_file(collect, tmp_path, improvement, monkeypatch):
    monkeypatch.setattr(adaptive_rounding, "STEPS", 5)
    rows, lines = collect(["minmax"], int8=onnx_files.Int8(8, 99.0, [improvement]))
    file = (tmp_path / Path(rows["onnx_baseline_int8"].model).name).read_bytes()
    assert onnx_export.metadata(file)["about"]["improvements"] == [improvement]
    assert lines["onnx_baseline_int8"]["agreement"] >= 0.8


def test_an_engine_that_is_not_installed_has_a_line_for_each_file(collect, tmp_path):
    rows, lines = collect(["minmax"], engine="openvino")
    assert sorted(lines) == sorted(rows) == FOUR
    told = "OpenVINO is not installed (pip install -r requirements-openvino.txt)"
    assert {line["note"] for line in lines.values()} == {told}
    assert not any("agreement" in line for line in lines.values())
    stored = load_file(tmp_path / paths.PREDICTIONS)
    assert sorted(stored) == sorted(Path(row.model).stem for row in rows.values())


def test_each_file_is_executed_in_every_engine_that_is_installed(collect, tmp_path):
    pytest.importorskip("openvino")
    rows, lines = collect(["minmax"], engines.installed(), engine="openvino")
    assert sorted(lines) == FOUR
    stored = load_file(tmp_path / paths.PREDICTIONS)
    labels = toys.data().test.labels.numpy()
    for method, line in lines.items():
        assert (line["note"], line["images"]) == ("", len(labels))
        # int8 may differ by a step of the last layer's input; the classes of these networks do not.
        assert line["agreement"] >= 0.9
        name = paths.executed_name(Path(rows[method].model).stem, "openvino")
        assert (stored[name] == labels).mean() == pytest.approx(line["test_accuracy"])


def test_a_file_that_an_engine_cannot_run_has_a_line_that_says_why(collect, monkeypatch):
    real = executors.load

    def refuses(engine, *arguments):
        if engine.name == "openvino":
            raise UserError("a reason")
        return real(engine, *arguments)

    monkeypatch.setattr(executors, "load", refuses)
    rows, lines = collect(["minmax"], {"openvino": "1.0"}, engine="openvino")
    assert sorted(rows) == FOUR
    assert {method: line["note"] for method, line in lines.items()} == dict.fromkeys(
        FOUR, "a reason"
    )


def test_a_file_whose_logits_are_not_torchs_says_so(collect, monkeypatch):
    # Found by no image that the exporter checks.
    same = property(lambda agreement: agreement.images == onnx_export.CHECKED)
    monkeypatch.setattr(onnx_export.Agreement, "is_same", same)
    _, agreements = collect(["minmax"])
    assert [agreements[method]["note"] for method in FOUR] == ["its logits are not torch's", ""] * 2
