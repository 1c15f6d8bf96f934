"""What the report says of files to deploy, from tables with known truth."""

import dataclasses
import math

import pytest
from shown_runs import a_run

from stages.lib.analysis import candidates, ladder, tables
from stages.lib.report import deployment_charts, deployment_tables, markdown


@pytest.fixture(scope="module")
def run():
    return a_run()


def test_packed_files_are_compared_with_the_dense_one(run):
    lines = deployment_tables.packed_lines(run.everything())
    assert list(lines.method) == ["packed", "packed", "packed_quantized"]
    assert list(lines.smaller) == [40_000 / 4_100, 40_000 / 820, 40_000 / 4_100]
    table = deployment_tables.packed(run.everything())
    assert [row[1] for row in table.rows] == ["10 ×", "50 ×", "10 ×"]
    assert all(row[6].startswith("-") for row in table.rows)


def test_packed_files_of_one_method_stay_apart_by_their_size(run):
    everything = run.everything()
    packed = everything[everything.method == "packed"]
    assert list(packed.times_smaller) == [10, 50]
    assert (packed.seeds == 3).all()


def test_engines_are_medians_over_seeds_and_say_why_there_is_no_latency(run):
    lines = deployment_tables.engine_lines(run.deployed.engines)
    assert len(lines) == 10
    int8 = lines[(lines.method == "onnx_int8") & (lines.batch_size == 1)].iloc[0]
    assert int8.faster == pytest.approx(5)
    assert int8.runs == 27
    table = deployment_tables.engines(
        run.deployed.engines, run.everything(), run.deployed.agreements
    )
    missing = [row for row in table.rows if row[-1]]
    assert [row[2:6] for row in missing] == [("64", "", "", "")]
    assert missing[0][-1] == "could not be run"


@pytest.mark.parametrize(
    ("method", "bits", "sparsity", "name"),
    [
        ("baseline", 32, 0, "dense baseline"),
        ("onnx_int8", 8, 0, "dense baseline, int8"),
        ("onnx_finetune_float32", 32, 0.98, "global + fine-tuning, 98 %"),
        ("onnx_structured_layer_int8", 7, 0.6, "structured, per layer + fine-tuning, 60 %, int8"),
    ],
)
def test_a_network_is_called_the_same_in_every_engine(method, bits, sparsity, name):
    assert deployment_tables.network(method, bits, sparsity) == name


def test_that_zeros_alone_bring_no_speed_is_told_in_numbers(run):
    assert "with 95 % of its weights zero" in markdown.no_gain(run.deployed.engines)
    assert "1.02 to 1.02 times" in markdown.no_gain(run.deployed.engines)
    alone = run.deployed.engines[run.deployed.engines.method != "onnx_float32"]
    assert markdown.no_gain(alone) == ""


def test_onnx_files_are_candidates_where_all_latencies_are_of_a_cpu(run):
    found = run.networks()
    fast = found[found.method == "onnx_structured_global_int8"].iloc[0]
    assert fast.relative_latency == pytest.approx(0.05)
    assert not fast.masked
    zeros = found[found.method == "onnx_finetune_float32"].iloc[0]
    assert zeros.masked
    on_gpu = dataclasses.replace(run, latencies=run.latencies.assign(device="cuda")).networks()
    deployed = on_gpu[on_gpu.method.isin(tables.DEPLOYED)]
    assert len(deployed)
    assert deployed.relative_latency.isna().all()


def test_a_packed_file_is_the_smallest_that_can_be_had_and_is_never_the_fastest(run):
    loose = candidates.answers(run.networks(), losses=(0.1,))[0].choices
    assert loose["bytes_on_disk"].method == "packed"
    assert loose["bytes_on_disk"].times_smaller == 50
    assert loose["relative_latency"].method == "onnx_structured_global_int8"


def test_where_nothing_was_timed_a_line_stands_for_the_chart(run):
    engines = run.deployed.engines.assign(latency_ms=math.nan, relative_to_eager=math.nan)
    (panel,) = deployment_charts.engines(engines)
    assert "No latency" in str(panel.chart.to_dict())


CHOSEN = {
    "file": "smallest.packed", "words": "pruned and packed, 50 ×", "bytes": 820,
    "times_smaller_than_dense": 48.8, "validation": {"drop": 0.004},
    "test": {"accuracy": 0.95, "low": 0.93, "high": 0.97}, "latency": None,
}  # fmt: skip
BUDGETS = {"max_accuracy_drop": 0.01, "max_bytes": 1000, "max_latency_ms": None}


def test_the_recommendation_names_files_and_what_no_network_meets():
    card = {
        "budgets": BUDGETS,
        "smallest": {"chosen": CHOSEN, "reason": "", "nearest": []},
        "fastest": {
            "chosen": None, "reason": "no network meets it", "nearest": [{"words": "near"}],
        },
    }  # fmt: skip
    table = deployment_tables.recommendation(card)
    assert table.rows[0] == (
        "smallest.packed", "pruned and packed, 50 ×", "820 B (48.8 × smaller)", "-0.4",
        "95.0 % (93.0–97.0)", "not timed",
    )  # fmt: skip
    assert table.rows[1][:2] == ("fastest: none", "no network meets it; nearest: near")
    assert {len(row) for row in table.rows} == {len(table.headers)}
    text = deployment_tables.budgets(card)
    assert "at most 1 point of" in text
    assert "at most 1,000 bytes" in text
    assert "ms" not in text.split("(`package`)")[0]


def test_the_ladder_goes_down_to_the_packed_files(run):
    rungs = ladder.rungs(run.everything(), run.formats, 0.04)
    assert rungs.iloc[-1]["name"] == "packed, pruned, quantized"
    assert rungs.iloc[-1].bytes == 820
    assert rungs.iloc[-1].kind == ladder.FILE
    strict = ladder.rungs(run.everything(), run.formats, 0.0)
    assert not strict.name.str.startswith("packed").any()
    assert list(strict.name) == list(ladder.rungs(run.summary(), run.formats, 0.0).name)
