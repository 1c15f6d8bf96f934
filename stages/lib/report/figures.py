"""All figures of a run, in the order of the reports. A new figure is a function here and a macro in
words.j2.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from stages.lib.core import paths
from stages.lib.report import (
    accuracy_figures,
    charts,
    cost_figures,
    latency_figures,
    quantization_figures,
)
from stages.lib.report.figure import Figure
from stages.lib.report.run import Run

FIGURES: tuple[Callable[[Run], Figure | None], ...] = (
    accuracy_figures.accuracy, accuracy_figures.close_up, accuracy_figures.recovery,
    cost_figures.size, cost_figures.packed, cost_figures.ladder_of_sizes,
    latency_figures.latency, latency_figures.engines, latency_figures.structured,
    latency_figures.formats, accuracy_figures.sensitivity, quantization_figures.bits,
    quantization_figures.error, accuracy_figures.learning,
)  # fmt: skip


def build(run: Run) -> dict[str, Figure]:
    """All figures that the run has numbers for, by name."""
    drawn = (draw(run) for draw in FIGURES)
    return {figure.name: figure for figure in drawn if figure is not None}


def save(figures: Sequence[Figure], directory: Path) -> None:
    """Draws each figure into an SVG file with its name."""
    directory.mkdir(exist_ok=True)
    for figure in figures:
        picture = charts.picture(figure.title, figure.reading, figure.panels)
        picture.save(directory / f"{figure.name}{paths.PICTURE}", format="svg")
