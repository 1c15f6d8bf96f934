"""A run's tables: read, summed up, written for people and for plots."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import row

from stages.lib.analysis import exports, metrics, stage_tables, tables
from stages.lib.core import methods, records
from stages.lib.core.errors import UserError

POINTS = (0.4, 0.8)
GOOD = {
    "uniform": (0.5, 0.1), "global": (0.8, 0.3), "finetune": (0.9, 0.85), "iterative": (0.9, 0.89),
    "structured_layer": (0.3, 0.1), "structured_global": (0.3, 0.1),
    "structured_layer_finetune": (0.85, 0.6), "structured_global_finetune": (0.85, 0.6),
}  # fmt: skip


def made_up(accuracy=GOOD, seeds=(0, 1)):
    """Rows of a run in which method m has accuracy[m] at each of POINTS, the baseline 0.9."""
    rows = []
    for seed in seeds:
        wobble = 0.01 * seed
        rows.append(row(seed, "baseline", 0.0, 0.9 + wobble))
        rows += [
            row(seed, method, point, value + wobble)
            for method, values in accuracy.items()
            for point, value in zip(POINTS, values, strict=True)
        ]
        rows += [
            row(seed, f"{scheme}_tensor", 0.0, 0.85, bits=bits, bytes_on_disk=1000)
            for scheme in ("affine", "symmetric")
            for bits in (8, 16)
        ]
    return pd.DataFrame(rows)


def test_summary_is_mean_and_sample_deviation_over_seeds():
    summary = tables.summary(made_up(seeds=(0, 1, 2)))
    line = summary[(summary.method == "global") & (summary.target_sparsity == 0.8)].iloc[0]
    assert line.test_accuracy == pytest.approx(0.31)
    assert line.test_accuracy_std == pytest.approx(0.01)
    assert line.seeds == 3


def test_sparsest_is_chosen_on_validation_alone():
    rows = made_up()
    rows.loc[rows.method == "finetune", "test_accuracy"] = 0.0
    assert tables.sparsest(rows, "finetune", 0.06) == 0.8
    assert tables.sparsest(rows, "finetune", 0.01) == 0.4
    assert tables.sparsest(rows, "uniform", 0.01) == 0.0
    assert tables.sparsest(rows, "unheard of", 0.01) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(10, "10 B"), (2048, "2 KiB"), (1_373_634, "1.31 MiB"), (3 * 2**30, "3072 MiB")],
)
def test_sizes_are_binary(count, text):
    assert tables.size(count) == text


@given(st.text())
def test_an_escaped_text_is_one_line_without_markup(text):
    escaped = tables.escaped(text)
    assert len(escaped.splitlines()) <= 1
    bare = escaped.replace("\\\\", "")
    for mark in "`*_[]<>|&~$#@":
        assert bare.count(mark) == bare.count(f"\\{mark}")


def test_metrics_are_means_over_seeds_and_hold_no_latency():
    found = metrics.named(made_up(), 0.8, 0.06)
    assert "NaN" not in json.dumps(found)
    structured = ("structured_layer_finetune", "structured_global_finetune")
    assert found == {
        "test_accuracy": {
            "baseline": 0.905, "finetune": 0.855, "iterative": 0.895, "int8": 0.85,
            **dict.fromkeys(structured, 0.605),
        },
        "sparsest_within": {"finetune": 0.8, "iterative": 0.8, **dict.fromkeys(structured, 0.4)},
        "bytes_on_disk": {"baseline": 4000, "int8": 1000},
    }  # fmt: skip


def test_metrics_choose_8_bit_weights_by_size_then_validation_never_by_test():
    rows = made_up()
    chosen = rows.method == "symmetric_tensor"
    rows.loc[chosen, "validation_accuracy"] += 0.01
    rows.loc[rows.method == "affine_tensor", "test_accuracy"] = 1.0
    assert metrics.named(rows, 0.8, 0.06)["test_accuracy"]["int8"] == 0.85
    rows.loc[chosen, "bytes_on_disk"] = 1001
    found = metrics.named(rows, 0.8, 0.06)
    assert found["bytes_on_disk"]["int8"] == 1000
    assert found["test_accuracy"]["int8"] == 1.0


def test_what_was_not_run_is_left_out_of_metrics():
    rows = made_up({"finetune": GOOD["finetune"]})
    assert metrics.named(rows[rows.weight_bits == 32], 0.5, 0.001) == {
        "test_accuracy": {"baseline": 0.905},
        "sparsest_within": {"finetune": 0.4},
        "bytes_on_disk": {"baseline": 4000},
    }


def test_what_was_not_run_has_an_empty_plot():
    plots = exports.accuracy_plots(made_up({"global": GOOD["global"]}))
    pruning = methods.of_family(methods.UNSTRUCTURED, methods.STRUCTURED)
    assert set(plots) == {one.name for one in pruning}
    assert plots["global"].to_dict("list") == {"sparsity": [0.4, 0.8], "global": [0.805, 0.305]}
    assert plots["iterative"].empty


def test_a_table_without_lines_is_a_table_and_names_are_never_missing(tmp_path):
    file = tmp_path / "best.csv"
    file.write_text("seed,layer,sparsity,validation_accuracy\n", encoding="utf-8")
    assert stage_tables.table(file, records.BEST_SPARSITY).sparsity.dtype == float
    assert stage_tables.of_seeds({0: file}, records.BEST_SPARSITY).empty
    file.write_text(
        "seed,layer,sparsity,validation_accuracy\n0,null,0.4,0.9\n0,NA,0.8,\n", encoding="utf-8"
    )
    found = stage_tables.table(file, records.BEST_SPARSITY)
    assert list(found.layer) == ["null", "NA"]
    assert found.validation_accuracy.isna().tolist() == [False, True]
    file.write_text("seed,layer,sparsity,validation_accuracy\n0,a,much,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="text where numbers"):
        stage_tables.table(file, records.BEST_SPARSITY)
