"""A run's tables: read, summed up, written for people and for plots."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_networks import budgets, plenty
from made_up_runs import a_run

from stages.lib.analysis import exports, metrics, selection_file, stage_tables, tables
from stages.lib.core import methods, records
from stages.lib.core.errors import UserError

GOOD = {
    "baseline": 0.9, "affine_tensor": 0.85, "uniform": (0.5, 0.1), "global": (0.8, 0.3),
    "finetune": (0.9, 0.85), "iterative": (0.9, 0.89),
    "structured_layer_finetune": (0.85, 0.6), "structured_global_finetune": (0.85, 0.6),
}  # fmt: skip


def made_up(accuracies=GOOD, seeds=(0, 1)):
    """Rows at sparsities 0.4 and 0.8; each seed is a percentage point better than the last."""
    return a_run(accuracies, seeds, wobble={1: 0.01, 2: 0.02}).rows


def test_summary_is_mean_and_sample_deviation_over_seeds():
    summary = tables.summary(made_up(seeds=(0, 1, 2)))
    line = summary[(summary.method == "global") & (summary.target_sparsity == 0.8)].iloc[0]
    expected = pytest.approx((0.31, 0.01, 3))
    assert (line.test_accuracy, line.test_accuracy_std, line.seeds) == expected


@pytest.mark.parametrize(
    ("method", "max_drop", "sparsest"),
    [("finetune", 0.06, 0.8), ("finetune", 0.01, 0.4), ("uniform", 0.01, 0), ("unheard", 0, None)],
)
def test_sparsest_is_chosen_on_validation_alone(method, max_drop, sparsest):
    assert tables.sparsest(made_up().assign(test_accuracy=0.0), method, max_drop) == sparsest


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
    structured = ("structured_layer_finetune", "structured_global_finetune")
    assert metrics.named(made_up(), 0.8, 0.06) == {
        "test_accuracy": {
            "baseline": 0.905, "finetune": 0.855, "iterative": 0.895, "int8": 0.855,
            **dict.fromkeys(structured, 0.605),
        },
        "sparsest_within": {"finetune": 0.8, "iterative": 0.8, **dict.fromkeys(structured, 0.4)},
        "bytes_on_disk": {"baseline": 4000, "int8": 1000},
    }  # fmt: skip


@pytest.mark.parametrize(("size", "accuracy"), [(1000, 0.855), (1001, 1.0)])
def test_metrics_choose_8_bit_weights_by_size_then_validation_never_by_test(size, accuracy):
    rows = made_up()
    affine = rows.method == "affine_tensor"
    other = rows[affine].assign(method="symmetric_tensor", bytes_on_disk=size)
    other.validation_accuracy += 0.01
    rows.loc[affine, "test_accuracy"] = 1.0
    found = metrics.named(pd.concat([rows, other]), 0.8, 0.06)
    assert found["test_accuracy"]["int8"] == accuracy
    assert found["bytes_on_disk"]["int8"] == 1000


def test_what_was_not_run_is_left_out_of_metrics_and_has_an_empty_plot():
    rows = made_up({name: GOOD[name] for name in ("baseline", "finetune")})
    assert metrics.named(rows, 0.5, 0.001) == {
        "test_accuracy": {"baseline": 0.905},
        "sparsest_within": {"finetune": 0.4},
        "bytes_on_disk": {"baseline": 4000},
    }
    plots = exports.accuracy_plots(rows)
    pruning = methods.of_family(methods.UNSTRUCTURED, methods.STRUCTURED)
    assert set(plots) == {one.name for one in pruning}
    points = {"sparsity": [0.4, 0.8], "finetune": [0.905, 0.855]}
    assert plots["finetune"].to_dict("list") == points
    assert plots["iterative"].empty


def packed_at(times, size, accuracies):
    rows = made_up({"baseline": 0.9})
    return rows.assign(
        method="packed", weight_bits=4, times_smaller=times, bytes_on_disk=size,
        test_accuracy=accuracies,
    )  # fmt: skip


def test_packed_files_have_their_bytes_and_accuracies():
    rows = pd.concat([packed_at(50.0, 80, [0.7, 0.8]), packed_at(12.5, 300, [0.8, 0.9])])
    assert metrics.packed(rows) == {
        "packed-12.5x": {"bytes": 300, "test_accuracy": 0.85},
        "packed-50x": {"bytes": 80, "test_accuracy": 0.75},
    }
    plots = exports.packed_plots(rows)
    assert plots["packed"].to_dict("list") == {
        "times_smaller": [12.5, 50.0], "packed": [0.85, 0.75],
    }  # fmt: skip
    assert plots["packed_pruned"].empty
    assert metrics.packed(made_up({"baseline": 0.9})) == {}


def test_what_can_be_had_is_that_of_the_selection():
    """With a latency that is not known, and a role that nothing meets."""
    networks = plenty().packed(20.0, bytes=2_000, accuracy=0.945)
    selected, _ = selection_file.build(networks.candidates, budgets(0.01), networks.seeds)
    found, chosen = metrics.deployed(selected), selected["recommended"]
    assert found["smallest"] == {"test_accuracy": 0.9, "bytes": 2_000, "times_smaller": 20.0}
    assert found["fastest"]["speedup"] == chosen["fastest"]["choice"]["speedup"] == 5.0
    plot = exports.budget_plot(selected)
    assert list(plot.loss) == [0.0, 0.005, 0.01, 0.02]
    line = plot[plot.loss == 0.01].iloc[0]
    assert (line.times_smaller, line.speedup) == (20.0, 5.0)
    assert plot.times_smaller.is_monotonic_increasing
    selected, _ = selection_file.build(networks.candidates, budgets(0.01, 500), networks.seeds)
    assert metrics.deployed(selected) == {}


HEADER = "seed,layer,sparsity,validation_accuracy\n"


def test_a_table_without_lines_is_a_table_and_names_are_never_missing(tmp_path):
    file = tmp_path / "best.csv"
    file.write_text(HEADER, encoding="utf-8")
    assert stage_tables.table(file, records.BEST_SPARSITY).sparsity.dtype == float
    assert stage_tables.of_seeds({0: file}, records.BEST_SPARSITY).empty
    file.write_text(f"{HEADER}0,null,0.4,0.9\n0,NA,0.8,\n", encoding="utf-8")
    found = stage_tables.table(file, records.BEST_SPARSITY)
    assert list(found.layer) == ["null", "NA"]
    assert found.validation_accuracy.isna().tolist() == [False, True]
    file.write_text(f"{HEADER}0,a,much,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="text where numbers"):
        stage_tables.table(file, records.BEST_SPARSITY)
