"""The estimate of the speed-up: known answers, and Graham's bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import toys
from tests.benchmarks.scaling import Times, binding, estimate, makespan

seconds = st.lists(st.floats(0.01, 100), min_size=1, max_size=40)


@given(seconds, st.integers(1, 50))
@toys.few_examples
def test_workers_share_the_arms_within_grahams_bounds(arms, workers):
    found, load = makespan(arms, workers), sum(arms) / workers
    assert max(load, max(arms)) <= found + 1e-9
    assert found <= load + max(arms) + 1e-9
    assert makespan(arms, 1) == pytest.approx(sum(arms))
    assert makespan(arms, len(arms)) == pytest.approx(max(arms))


def test_an_estimate_adds_what_no_worker_shortens():
    times = Times({"a": [3, 1, 2], "b": [4, 4]}, {"report": 5.0}, start=0.5, starts=4)
    one, two, many = (estimate(times, workers) for workers in (1, 2, 99))
    assert (one.all, two.all, many.all) == (14 + 5 + 2, 3 + 4 + 5 + 2, 3 + 4 + 5 + 2)
    assert binding(one) == "longest arms (33%)"
    assert binding(estimate(times, 99, 100)) == "longest arms (99%)"
    assert estimate(times, 2, 10) == (70, 70, 5.0, 2.0)
