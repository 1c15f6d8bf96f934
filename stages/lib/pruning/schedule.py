"""The sparsities that iterative pruning goes through."""


def sparsities(step: float, target: float, stops: list[float]) -> list[float]:
    """Sparsities that iterative pruning goes through: every `step` up to `target`, and on the way
    each of `stops`, so that it can be compared there with other methods. Ascending, all above 0.
    """
    count = int(target / step + 1e-9)
    points = {round(step * index, 6) for index in range(1, count + 1)}
    points |= {round(stop, 6) for stop in stops if 0 < stop < target}
    return sorted({point for point in points if point < target} | {round(target, 6)})
