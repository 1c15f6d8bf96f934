"""The ONNX files of one seed: which there are, and by which calibration."""

import pytest

from stages.lib.core import records
from stages.lib.engines import onnx_export, onnx_files
from stages.lib.evaluation import counting, results
from stages.lib.evaluation.evaluator import Evaluator
from tests import toys


def kept_for(folder, calibrations):
    """The rows of the dense network and of a pruned one, and the whole table."""
    data = toys.data()
    model, other = toys.lived_in(toys.convnet()), toys.lived_in(toys.convnet(), seed=1)
    evaluator = Evaluator(0, data, counting.prunable_weights(model))
    sources = [
        onnx_files.Source(evaluator.row(model, "baseline")[0], model),
        onnx_files.Source(evaluator.row(other, "finetune", target_sparsity=0.5)[0], other),
    ]
    int8 = onnx_files.Int8(8, onnx_files.calibration_images(data, 10, 0), 99.0)
    (folder / "out").mkdir()
    kept = results.Results(folder / "out", folder / "out", evaluator)
    files = onnx_files.Collection(kept, int8, 1)
    rows = files.add_all(sources, calibrations)
    kept.write()
    return rows, records.read(folder / "out" / "rows.csv"), files.agreements


def calibration(path):
    return onnx_export.metadata(path.read_bytes())["about"].get("calibration")


@pytest.mark.parametrize("calibrations", [["minmax"], ["minmax", "entropy", "percentile"]])
def test_the_best_calibration_of_the_dense_network_is_that_of_all(tmp_path, calibrations):
    rows, table, agreements = kept_for(tmp_path, calibrations)
    assert [[row.method for row in pair] for pair in rows] == [
        ["onnx_baseline_float32", "onnx_baseline_int8"],
        ["onnx_finetune_float32", "onnx_finetune_int8"],
    ]
    by_method = {row.method: row for row in table}
    assert len(by_method) == len(table) == len(agreements)
    each = [by_method[name] for name in by_method if name.startswith("onnx_baseline_int8_")]
    assert len(each) == (0 if len(calibrations) == 1 else 3)
    out = tmp_path / "out"
    files = {row.method: out / row.model.rpartition("/")[2] for row in table}
    chosen = calibration(files["onnx_int8"])
    assert calibration(files["onnx_finetune_int8"]) == chosen
    assert calibration(files["onnx_float32"]) is None
    if each:
        best = max(each, key=lambda row: row.validation_accuracy)
        assert chosen == best.method.removeprefix("onnx_int8_")
        assert files["onnx_int8"].read_bytes() == files[best.method].read_bytes()
        assert by_method["onnx_int8"].test_accuracy == best.test_accuracy
