"""What can be had: chosen on validation alone, and only where it saves something."""

import pytest
from shown_runs import a_run

from stages.lib.analysis import candidates, ladder, tables


def networks(change=None):
    run = a_run()
    rows = run.rows if change is None else change(run.rows.copy())
    summary = tables.with_bounds(tables.summary(rows), None)
    return candidates.table(summary, run.latencies)


def choices(found, cost):
    return {answer.loss: answer.choices[cost] for answer in candidates.answers(found)}


def test_each_network_is_there_once_and_named():
    found = networks()
    assert not found.network.duplicated().any()
    assert {"dense baseline", "iterative, 80 %", "int8, affine per tensor"} <= set(found.network)
    assert not found.network.str.contains("int4").any()


def test_no_choice_loses_more_than_it_may():
    found = networks()
    dense = found[found.method == "baseline"].validation_accuracy.iloc[0]
    for answer in candidates.answers(found):
        for choice in answer.choices.values():
            assert choice.validation_accuracy >= dense - answer.loss - 1e-9


@pytest.mark.parametrize("cost", candidates.COSTS)
def test_more_loss_never_costs_more(cost):
    costs = [choice[cost] for choice in choices(networks(), cost).values()]
    assert costs == sorted(costs, reverse=True)


def test_test_accuracy_chooses_nothing():
    def worse(rows):
        rows["test_accuracy"] = 0.0
        return rows

    before, after = networks(), networks(worse)
    for cost in candidates.COSTS:
        assert [one.network for one in choices(before, cost).values()] == [
            one.network for one in choices(after, cost).values()
        ]


def test_a_file_that_is_smaller_by_its_header_alone_is_no_saving():
    def nearly(rows):
        masked = (rows.method == "iterative") | (rows.weight_bits < 32)
        rows.loc[masked | rows.method.str.startswith("structured"), "bytes_on_disk"] = 39_700
        return rows

    chosen = choices(networks(nearly), "bytes_on_disk")
    assert {choice.method for choice in chosen.values()} == {"baseline"}


def test_a_network_trained_again_takes_the_time_of_its_shape():
    found = networks().set_index("network")
    time = found.relative_latency
    for scope in ("per layer", "global"):
        for point in ("40 %", "80 %"):
            name = f"structured, {scope}"
            assert time[f"{name}, {point}"] == time[f"{name} + fine-tuning, {point}"]
    assert time[["iterative, 80 %", "int8, affine per tensor"]].isna().all()


def test_masks_alone_want_sparse_kernels():
    masked = networks().set_index("network").masked
    assert masked["iterative, 80 %"]
    assert not masked["dense baseline"]
    assert not masked["structured, global + fine-tuning, 80 %"]
    assert not masked["int8, affine per tensor"]


def test_the_ladder_descends_from_the_dense_file_and_says_what_is_calculated():
    run = a_run()
    rungs = ladder.rungs(tables.summary(run.rows), run.formats, max_drop=0.01)
    assert list(rungs.bytes) == sorted(rungs.bytes, reverse=True)
    assert rungs.name.iloc[0] == "float32, dense"
    sizes = dict(zip(rungs.name, zip(rungs.bytes, rungs.kind, strict=True), strict=True))
    assert sizes["bfloat16, dense"] == (20_000, ladder.FILE)
    assert sizes["int8, dense"] == (10_500, ladder.FILE)
    # Iterative pruning keeps 80 % within a point: 2,000 numbers of 4 bytes, 10,000 bits.
    assert sizes["float32, nonzeros alone"] == (8_000, ladder.ESTIMATE)
    assert sizes["float32, nonzeros + bitmap"] == (9_250, ladder.ESTIMATE)
    assert sizes["8 bits, nonzeros + bitmap"] == (3_250, ladder.ESTIMATE)


def test_the_ladder_has_no_pruned_network_where_none_is_good_enough():
    run = a_run()
    rows = run.rows.copy()
    rows.loc[rows.target_sparsity > 0, "validation_accuracy"] = 0.1
    rungs = ladder.rungs(tables.summary(rows), run.formats, max_drop=0.01)
    assert set(rungs.kind) == {ladder.FILE}
    assert not rungs.name.str.contains("filters").any()


def test_a_mask_alone_is_never_the_fastest():
    run = a_run()
    latencies = run.latencies.copy()
    latencies.loc[latencies.method == "global", "relative_to_baseline"] = 0.1
    summary = tables.with_bounds(tables.summary(run.rows), None)
    found = candidates.table(summary, latencies)
    for choice in choices(found, "relative_latency").values():
        assert not choice.masked


def test_a_gain_within_the_noise_of_the_clock_is_none():
    found = networks()
    assert any(one.method != "baseline" for one in choices(found, "relative_latency").values())
    for answer in candidates.answers(found, noise=0.99):
        assert answer.choices["relative_latency"].method == "baseline"


def test_the_noise_of_the_clock_is_what_equal_work_is_off_by():
    latencies = a_run().latencies.copy()
    device, batch = candidates.latency_setting(latencies)
    equal = latencies.method == "global"
    latencies.loc[equal, "relative_to_baseline"] = 1.02
    assert candidates.clock_noise(latencies) == pytest.approx(0.02)
    here = equal & (latencies.device == device) & (latencies.batch_size == batch)
    latencies.loc[latencies[here].index[0], "relative_to_baseline"] = 0.9
    assert candidates.clock_noise(latencies) == pytest.approx(0.1)
    assert candidates.clock_noise(latencies[~equal]) == 0
