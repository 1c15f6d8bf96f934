"""The steps of iterative pruning."""


def sparsities(step: float, target: float, stops: list[float]) -> list[float]:
    """The sparsities after each step of iterative pruning, ascending and above 0.

    step, target: every multiple of `step` up to `target`, and `target` itself.
    stops: further sparsities below `target`, at which other methods are measured.
    """
    count = int(target / step + 1e-9)
    points = {round(step * index, 6) for index in range(1, count + 1)}
    points |= {round(stop, 6) for stop in stops if 0 < stop < target}
    return sorted({point for point in points if point < target} | {round(target, 6)})
