"""Costs against accuracy: which points no other beats."""

import numpy as np


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
