"""The Pareto front and the cheapest candidate, against their definitions."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.analysis import pareto

# Few values, so that ties of one and of both are frequent.
POINTS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30)


def dominates(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(POINTS)
def test_no_point_of_the_front_is_dominated_and_every_other_is(points):
    on_front = pareto.pareto_front(*np.array(points, float).T)
    for point, on in zip(points, on_front, strict=True):
        assert on != any(dominates(other, point) for other in points)


@given(POINTS)
def test_every_point_off_the_front_is_dominated_by_one_on_it(points):
    on_front = pareto.pareto_front(*np.array(points, float).T)
    front = [point for point, on in zip(points, on_front, strict=True) if on]
    assert front
    for point, on in zip(points, on_front, strict=True):
        assert on or any(dominates(other, point) for other in front)


@given(POINTS, st.randoms())
def test_the_front_does_not_depend_on_the_order(points, random):
    shuffled = random.sample(range(len(points)), len(points))
    on_front = pareto.pareto_front(*np.array(points, float).T)
    again = pareto.pareto_front(*np.array([points[i] for i in shuffled], float).T)
    assert list(on_front[shuffled]) == list(again)


@given(POINTS, st.integers(-1, 9))
def test_the_cheapest_qualifies_and_nothing_that_qualifies_is_cheaper(points, least):
    table = pd.DataFrame(points, columns=["cost", "accuracy"])
    found = pareto.cheapest(table, "cost", least, "accuracy")
    good = [point for point in points if point[1] >= least]
    if not good:
        assert found is None
        return
    cost = min(point[0] for point in good)
    assert found.cost == cost
    assert found.accuracy == max(accuracy for this, accuracy in good if this == cost)


def test_a_candidate_without_the_cost_is_passed_over():
    table = pd.DataFrame({"cost": [np.nan, 3.0], "accuracy": [1.0, 0.5]})
    assert pareto.cheapest(table, "cost", 0.5, "accuracy").cost == 3.0
    assert pareto.cheapest(table, "cost", 0.6, "accuracy") is None


def test_means_that_differ_by_rounding_alone_are_equal():
    table = pd.DataFrame({"cost": [1.0], "accuracy": [0.3 - 0.2]})
    assert table.accuracy[0] < 0.1
    assert pareto.cheapest(table, "cost", 0.1, "accuracy") is not None
