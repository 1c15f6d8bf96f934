"""All figures of a run, in the order of the reports. A new figure is a function here and a macro in
words.j2.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from stages.lib.core import paths
from stages.lib.report import (
    accuracy_figures,
    charts,
    class_figures,
    cost_figures,
    latency_figures,
    quantization_figures,
)
from stages.lib.report.figure import Figure
from stages.lib.report.run import Run

FIGURES: tuple[Callable[[Run], Figure | None], ...] = (
    cost_figures.against_gain, class_figures.classes, accuracy_figures.accuracy,
    cost_figures.packed, cost_figures.ladder_of_sizes, latency_figures.engines,
    latency_figures.structured, accuracy_figures.sensitivity, quantization_figures.bits,
    accuracy_figures.learning, latency_figures.formats, quantization_figures.error,
)  # fmt: skip

# Those that the course asked for, and nobody who compresses a network of their own.
OF_COURSE = (latency_figures.formats, quantization_figures.error)


def build(run: Run) -> dict[str, Figure]:
    """All figures that the run has numbers for, by name."""
    drawn = (draw(run) for draw in FIGURES if run.course or draw not in OF_COURSE)
    return {figure.name: figure for figure in drawn if figure is not None}


def save(figures: Sequence[Figure], directory: Path) -> None:
    """Draws each figure into an SVG file with its name."""
    directory.mkdir(exist_ok=True)
    for figure in figures:
        picture = charts.picture(figure.title, figure.reading, figure.panels)
        picture.save(directory / f"{figure.name}{paths.PICTURE}", format="svg")
