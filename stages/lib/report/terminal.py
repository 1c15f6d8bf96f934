"""The last lines of a run: the baseline, the recommended files, where to look."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.analysis import selection_file, tables
from stages.lib.report import words


def closing(selection: Mapping[str, Any], files: Path, page: Path) -> list[str]:
    """Three lines.

    selection: of selection.json.
    files: the folder of the recommended files.
    page: the report.
    """
    baseline = selection["baseline"]
    speed = baseline["latency_ms"]
    timed = f", {tables.milliseconds(speed)} ms an image" if speed is not None else ""
    accuracy, size = f"{100 * baseline['test']['accuracy']:.1f} % test", baseline["bytes"]
    recommended = [
        _recommended(role, found["choice"]) for role, found in selection["recommended"].items()
    ]
    recommended.append(selection_file.of_engine(selection))
    return [
        f"baseline     {accuracy}, {tables.size(size)}{timed}",
        f"recommended  {'; '.join(filter(None, recommended))}",
        f"look         {page} (report), {files}/ (files)",
    ]


def _recommended(role: str, choice: Mapping[str, Any] | None) -> str:
    """A file with its accuracy and what it saves, or that there is none."""
    if choice is None:
        return f"{role}: none"
    told = [f"{100 * choice['test']['accuracy']:.1f} % test", tables.size(choice["bytes"])]
    told[1] += f" ({tables.smaller(choice['times_smaller'])})"
    if choice["speedup"] is not None:
        engine = words.engine(choice["engine"])
        told.append(f"{tables.factor(choice['speedup'])} faster in {engine}")
    return f"{role}{Path(choice['file']).suffix} {', '.join(told)}"
