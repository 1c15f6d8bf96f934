"""Writes a comparison of two runs: lines for a terminal, or Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from stages.lib.analysis import tables
from stages.lib.analysis.committed import Manifest, Run
from stages.lib.analysis.comparison import GONE, Line, Rules, compare
from stages.lib.analysis.tables import Table
from stages.lib.core import hardware

HEADERS = ("metric", "before → after", "difference", "verdict")
VALUES: dict[str, Callable[[float], str]] = {
    "accuracy": lambda share: f"{100 * share:.2f} %",
    "bytes": lambda size: f"{tables.count(size)} B",
    "ms": lambda time: f"{tables.milliseconds(time)} ms",
}


def _difference(line: Line) -> str:
    """The text of a difference: "−2.20 points (−3.10 to −1.30)", "× 1.27 (1.02 to 1.60)"."""
    if line.change is None:
        return ""
    if line.unit == "bytes":
        return f"{100 * (line.change - 1):+.2g} %".replace("-", "−")
    if line.unit == "ms":
        return f"× {line.change:.2f} ({line.low:.2f} to {line.high:.2f})"
    ends = (tables.points(end, 2) for end in (line.change, line.low, line.high))
    return "{} points ({} to {})".format(*ends)


def _cells(line: Line) -> tuple[str, ...]:
    before, after = (
        "–" if value is None else VALUES[line.unit](value) for value in (line.before, line.after)
    )
    verdict = f"{line.verdict}: a real loss" if line.real_loss else line.verdict
    return line.metric, f"{before} → {after}", _difference(line), verdict


def _seeds(before: Manifest, after: Manifest, rules: Rules) -> str:
    old, new = (", ".join(map(str, sorted(run.seeds))) for run in (before, after))
    sure = f"{tables.percent(rules.confidence)} intervals"
    over = f"seeds{', paired,' if old == new else ''} and images, unpaired"
    if len(before.seeds) == len(after.seeds) == 1:
        over = "images alone: another training may differ by more"
    return f"Seeds {old if old == new else f'{old} → {new}'}: {sure} over {over}."


def facts(before: Manifest, after: Manifest, rules: Rules) -> list[str]:
    """Sentences about what the intervals are over, and what else differs between the runs."""
    told, images = [_seeds(before, after, rules)], after.data.images
    if before.same_data(after):
        told.append(f"The same data: {tables.count(images.test)} test images.")
    else:
        told.append("Other data (images, classes or parts): accuracies cannot be compared.")
    if not before.same_machine(after):
        told.append("Another machine: latencies cannot be compared.")
    pairs = {name: (before.hardware[name], after.hardware[name]) for name in hardware.SOFTWARE}
    for name in {**before.model, **after.model}:
        pairs[f"model.{name}"] = before.model.get(name), after.model.get(name)
    return told + [
        f"Another {name}: {old} → {new}." for name, (old, new) in pairs.items() if old != new
    ]


@dataclass(frozen=True)
class Comparison:
    """A comparison of two runs, for people and, as fields, for programs.

    compared: what with what; facts: of `facts`.
    real_losses: the metrics that lost more than the tolerance.
    """

    compared: str
    facts: Sequence[str]
    rules: Rules
    metrics: Sequence[Line]
    real_losses: Sequence[str]

    @property
    def conclusion(self) -> str:
        """Whether there is a real loss, and where."""
        tolerance = self.rules.tolerance
        beyond = (
            f"{100 * tolerance:.4g} points of accuracy or"
            f" {tables.percent(tolerance)} of a file's size"
        )
        gone = [line.metric for line in self.metrics if line.verdict == GONE]
        missing = f" No longer measured: {', '.join(gone)}." if gone else ""
        if self.real_losses:
            return f"Real loss, beyond {beyond}: {', '.join(self.real_losses)}.{missing}"
        return f"No real loss: nothing is surely worse by more than {beyond}.{missing}"

    def plain(self) -> str:
        """For a terminal: a line per metric, aligned."""
        table = tabulate(map(_cells, self.metrics), HEADERS, "plain", disable_numparse=True)
        return "\n".join([self.compared, *self.facts, "", table, "", self.conclusion])

    def markdown(self) -> str:
        """For a summary in continuous integration."""
        table = Table(HEADERS, [*map(_cells, self.metrics)], left=len(HEADERS)).markdown()
        return "\n\n".join([f"**{self.compared}**", " ".join(self.facts), table, self.conclusion])


def build(compared: str, before: Run, after: Run, rules: Rules) -> Comparison:
    """Compares two runs. compared: says which."""
    lines = compare(before, after, rules)
    losses = [line.metric for line in lines if line.real_loss]
    return Comparison(compared, facts(before.manifest, after.manifest, rules), rules, lines, losses)
