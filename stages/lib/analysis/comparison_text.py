"""A comparison of two runs in words: lines for a terminal, Markdown, JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from stages.lib.analysis import tables
from stages.lib.analysis.comparison import GONE, Line, Rules
from stages.lib.analysis.manifest import Manifest
from stages.lib.core import hardware

HEADERS = ("metric", "before → after", "difference", "verdict")
VALUES: dict[str, Callable[[float], str]] = {
    "accuracy": lambda share: f"{100 * share:.2f} %",
    "sparsity": tables.percent,
    "bytes": lambda size: f"{tables.count(size)} B",
    "ms": lambda time: f"{tables.milliseconds(time)} ms",
}


def _difference(line: Line) -> str:
    """A difference with its interval: "-2.20 [-3.10, -1.30] points", "× 1.27 [1.02, 1.60]"."""
    if line.change is None:
        return ""
    if line.unit == "bytes":
        return f"{100 * (line.change - 1):+.2g} %"
    numbers = (line.change, line.low, line.high)
    if line.unit == "ms":
        return "× {:.2f} [{:.2f}, {:.2f}]".format(*numbers)
    text = "{:+.2f} [{:+.2f}, {:+.2f}] points".format(*(100 * number for number in numbers))
    return text if line.point is None else f"{text} kept at {tables.percent(line.point)}"


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
    """What the intervals rest on, and what else differs: sentences."""
    said = [_seeds(before, after, rules)]
    images = after.data["images"]
    if before.same_data(after):
        said.append(
            f"The same data: {tables.count(images['test'])} test images, and"
            f" {tables.count(images['validation'])} for validation."
        )
    else:
        said.append(
            f"Other data ({before.data['source']} → {after.data['source']}, other images, classes"
            " or parts): accuracies cannot be compared."
        )
    if before.model != after.model:
        keys = [key for key in after.model if before.model.get(key) != after.model[key]]
        changes = [f"{key} {before.model.get(key)} → {after.model[key]}" for key in keys]
        said.append(f"Another network: {', '.join(changes) or 'other params'}.")
    if not before.same_machine(after):
        said.append(
            "Another machine: latencies cannot be compared, and accuracies wobble in their last"
            " digits."
        )
    for name in hardware.SOFTWARE:
        if before.hardware[name] != after.hardware[name]:
            said.append(f"Another {name}: {before.hardware[name]} → {after.hardware[name]}.")
    return said


def conclusion(lines: Sequence[Line], rules: Rules) -> str:
    """Whether there is a real loss, and where."""
    lost = [line.metric for line in lines if line.real_loss]
    beyond = (
        f"{100 * rules.tolerance:.4g} points of accuracy or"
        f" {tables.percent(rules.tolerance)} of a file's size"
    )
    gone = [line.metric for line in lines if line.verdict == GONE]
    missing = f" No longer measured: {', '.join(gone)}." if gone else ""
    if lost:
        return f"Real loss, beyond {beyond}: {', '.join(lost)}.{missing}"
    return f"No real loss: nothing is surely worse by more than {beyond}.{missing}"


def plain(title: str, said: Sequence[str], lines: Sequence[Line], rules: Rules) -> str:
    """For a terminal: a line per metric, aligned."""
    table = tabulate(map(_cells, lines), HEADERS, "plain", disable_numparse=True)
    return "\n".join([title, *said, "", table, "", conclusion(lines, rules)])


def markdown(title: str, said: Sequence[str], lines: Sequence[Line], rules: Rules) -> str:
    """For a summary in continuous integration."""
    table = tables.markdown(HEADERS, map(_cells, lines), left=len(HEADERS))
    return "\n\n".join([f"**{title}**", " ".join(said), table, conclusion(lines, rules)])


def plain_values(
    title: str, said: Sequence[str], lines: Sequence[Line], rules: Rules
) -> dict[str, Any]:
    """For programs: what JSON can hold."""
    return {
        "compared": title,
        "facts": list(said),
        "rules": asdict(rules),
        "metrics": [asdict(line) for line in lines],
        "real_losses": [line.metric for line in lines if line.real_loss],
    }
