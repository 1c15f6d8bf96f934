"""The estimate of the speed-up: known answers, and Graham's bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import toys
from tests.benchmarks.scaling import Times, binding, estimate, makespan, pools

seconds = st.lists(st.floats(0.01, 100), min_size=1, max_size=40)


@given(seconds, st.integers(1, 50))
@toys.few_examples
def test_workers_share_the_arms_within_grahams_bounds(arms, workers):
    found, load = makespan(arms, workers), sum(arms) / workers
    assert max(load, max(arms)) <= found + 1e-9
    assert found <= load + max(arms) + 1e-9
    assert makespan(arms, 1) == pytest.approx(sum(arms))
    assert makespan(arms, len(arms)) == pytest.approx(max(arms))


def test_arms_whose_inputs_are_there_are_done_together():
    arms = {name: [number] for number, name in enumerate((
        "train_baseline", "global_prune", "finetune", "compress", "structured_prune", "export_onnx",
    ))}  # fmt: skip
    assert pools(arms) == [[0], [3, 4, 1], [2], [5]]
    assert pools({"finetune": [1, 2], "compress": [3]}) == [[3, 1, 2]]


def test_an_estimate_adds_what_no_worker_shortens():
    arms = {"train_baseline": [3, 1, 2], "finetune": [4, 4]}
    times = Times(arms, {"package": 5.0}, start=0.5, torch=2, starts=4)
    one, two, many = (estimate(times, workers) for workers in (1, 2, 99))
    starts = 2 + 3 * 2
    assert (one.all, two.all, many.all) == (14 + 5 + starts, 3 + 4 + 5 + starts, 3 + 4 + 5 + starts)
    assert binding(one) == "starting stages (30%)"
    assert binding(estimate(times, 99, 100)) == "longest arms (98%)"
    assert estimate(times, 2, 10) == (70, 70, 5.0, starts)
