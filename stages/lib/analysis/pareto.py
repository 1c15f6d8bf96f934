"""Costs against accuracy: which points no other beats, and the cheapest that is accurate enough."""

import numpy as np
import pandas as pd

# Accuracies are shares rounded to six digits; their means differ by less when they are the same.
EQUAL = 1e-9


def pareto_front(cost: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Which points are on the front: bool [n], True where no other point dominates.

    cost, accuracy: float [n], finite; less of the first and more of the second is better. A point
    dominates another if it is as good in both and better in one; points that are equal in both
    are on the front together.
    """
    cost, accuracy = np.asarray(cost, float), np.asarray(accuracy, float)
    on_front = np.zeros(len(cost), bool)
    best, at_cost = -np.inf, np.nan
    # By cost, and at equal cost the most accurate first.
    for index in np.lexsort((-accuracy, cost)):
        equal = accuracy[index] == best and cost[index] == at_cost
        if accuracy[index] > best or equal:
            on_front[index] = True
            best, at_cost = accuracy[index], cost[index]
    return on_front


def cheapest(
    candidates: pd.DataFrame, cost: str, least_accuracy: float, accuracy: str
) -> pd.Series | None:
    """The candidate of least `cost` among those whose `accuracy` is at least `least_accuracy`.

    cost, accuracy: names of columns. Candidates without the cost (NaN) are passed over; of equal
    costs the more accurate is taken, then the first. None where nothing qualifies.
    """
    good = candidates[candidates[cost].notna()]
    good = good[good[accuracy] >= least_accuracy - EQUAL]
    if good.empty:
        return None
    ordered = good.sort_values([cost, accuracy], ascending=[True, False], kind="stable")
    return ordered.iloc[0]
