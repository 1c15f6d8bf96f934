"""Writes a comparison of two runs: lines for a terminal, Markdown, JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from stages.lib.analysis import tables
from stages.lib.analysis.committed import Manifest
from stages.lib.analysis.comparison import GONE, Line, Rules
from stages.lib.core import hardware

HEADERS = ("metric", "before → after", "difference", "verdict")
VALUES: dict[str, Callable[[float], str]] = {
    "accuracy": lambda share: f"{100 * share:.2f} %",
    "bytes": lambda size: f"{tables.count(size)} B",
    "ms": lambda time: f"{tables.milliseconds(time)} ms",
}


def _difference(line: Line) -> str:
    """The text of a difference: "-2.20 [-3.10, -1.30] points", "× 1.27 [1.02, 1.60]"."""
    if line.change is None:
        return ""
    if line.unit == "bytes":
        return f"{100 * (line.change - 1):+.2g} %"
    numbers = (line.change, line.low, line.high)
    if line.unit == "ms":
        return "× {:.2f} [{:.2f}, {:.2f}]".format(*numbers)
    return "{:+.2f} [{:+.2f}, {:+.2f}] points".format(*(100 * number for number in numbers))


def _cells(line: Line) -> tuple[str, ...]:
    before, after = (
        "–" if value is None else VALUES[line.unit](value) for value in (line.before, line.after)
    )
    verdict = f"{line.verdict}: a real loss" if line.real_loss else line.verdict
    return line.metric, f"{before} → {after}", _difference(line), verdict


def _seeds(before: Manifest, after: Manifest, rules: Rules) -> str:
    old, new = (", ".join(map(str, sorted(run.seeds))) for run in (before, after))
    sure = f"{tables.percent(rules.confidence)} intervals"
    if len(before.seeds) == len(after.seeds) == 1:
        return (
            f"One seed ({old if old == new else f'{old} → {new}'}): {sure} over images alone;"
            " what another seed would change is not in them."
        )
    if old == new:
        return f"Seeds {old}: {sure} over seeds, paired, and images, unpaired."
    return f"Seeds {old} → {new}: {sure} over seeds and images, unpaired."


def facts(before: Manifest, after: Manifest, rules: Rules) -> list[str]:
    """Sentences about what the intervals are over, and what else differs between the runs."""
    told, images = [_seeds(before, after, rules)], after.data.images
    if before.same_data(after):
        told.append(
            f"The same data: {tables.count(images.test)} test images, and"
            f" {tables.count(images.validation)} for validation."
        )
    else:
        told.append(
            f"Other data ({before.data.source} → {after.data.source}, other images, classes or"
            " parts): accuracies cannot be compared."
        )
    if before.model != after.model:
        keys = [key for key in after.model if before.model.get(key) != after.model[key]]
        changes = [f"{key} {before.model.get(key)} → {after.model[key]}" for key in keys]
        told.append(f"Another network: {', '.join(changes) or 'other params'}.")
    if not before.same_machine(after):
        told.append(
            "Another machine: latencies cannot be compared, and accuracies wobble in their last"
            " digits."
        )
    for name in hardware.SOFTWARE:
        if before.hardware[name] != after.hardware[name]:
            told.append(f"Another {name}: {before.hardware[name]} → {after.hardware[name]}.")
    return told


@dataclass(frozen=True)
class Comparison:
    """A comparison. title: what is compared; facts: of `facts`."""

    title: str
    facts: Sequence[str]
    lines: Sequence[Line]
    rules: Rules

    @property
    def real_losses(self) -> list[str]:
        """The metrics that lost more than the tolerance."""
        return [line.metric for line in self.lines if line.real_loss]

    @property
    def conclusion(self) -> str:
        """Whether there is a real loss, and where."""
        tolerance = self.rules.tolerance
        beyond = (
            f"{100 * tolerance:.4g} points of accuracy or"
            f" {tables.percent(tolerance)} of a file's size"
        )
        gone = [line.metric for line in self.lines if line.verdict == GONE]
        missing = f" No longer measured: {', '.join(gone)}." if gone else ""
        if self.real_losses:
            return f"Real loss, beyond {beyond}: {', '.join(self.real_losses)}.{missing}"
        return f"No real loss: nothing is surely worse by more than {beyond}.{missing}"

    def plain(self) -> str:
        """For a terminal: a line per metric, aligned."""
        table = tabulate(map(_cells, self.lines), HEADERS, "plain", disable_numparse=True)
        return "\n".join([self.title, *self.facts, "", table, "", self.conclusion])

    def markdown(self) -> str:
        """For a summary in continuous integration."""
        table = tables.markdown(HEADERS, map(_cells, self.lines), left=len(HEADERS))
        return "\n\n".join([f"**{self.title}**", " ".join(self.facts), table, self.conclusion])

    def plain_values(self) -> dict[str, Any]:
        """For programs: what JSON can hold."""
        return {
            "compared": self.title,
            "facts": list(self.facts),
            "rules": asdict(self.rules),
            "metrics": [asdict(line) for line in self.lines],
            "real_losses": self.real_losses,
        }
