"""Writing results so that they are there whole or not at all.

A stage builds a directory beside its final place and renames it at the very end, so a kill
at any moment leaves the old result or none, never half of one.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}{PARTIAL}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_leftovers(final: Path) -> None:
    for leftover in final.parent.glob(f".{final.name}.*{PARTIAL}"):
        pid = leftover.name.removesuffix(PARTIAL).rpartition(".")[2]
        if pid.isdigit() and not _is_running(int(pid)):
            _remove(leftover)


def _put_in_place(new: Path, final: Path) -> None:
    if not final.is_dir():
        new.replace(final)
        return
    old = _partial(final.with_name(f"{final.name}.old"))
    _remove(old)
    final.rename(old)
    try:
        new.rename(final)
    except OSError:
        old.rename(final)
        raise
    _remove(old)


@contextmanager
def whole(
    finals: Sequence[Path], check: Callable[[], None] = lambda: None
) -> Iterator[dict[Path, Path]]:
    """Yields, for each final path, one beside it to write a file or a directory to. When the block
    ends well and `check` raises nothing, all of them take their final places.

    If the block raises, nothing changes. Leftovers of killed runs are removed.
    """
    partials = {final: _partial(final) for final in finals}
    for final, partial in partials.items():
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final)
        _remove(partial)  # an earlier process may have had this pid
    try:
        yield partials
        check()
        for final, partial in partials.items():
            _put_in_place(partial, final)
    finally:
        for partial in partials.values():
            _remove(partial)


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """As `whole`, of one file."""
    with whole([final]) as partials:
        yield partials[final]


def write_text(final: Path, text: str) -> None:
    """Writes a UTF-8 file in one step (temporary file, then rename)."""
    with whole_file(final) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(final: Path, value: Any) -> None:
    """Writes `value` as indented JSON, keys in the order given; NaN and infinity raise
    ValueError.
    """
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _cell(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write_csv(final: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table, floats to six significant digits; None becomes an empty cell, a key outside
    `columns` raises ValueError.
    """
    with whole_file(final) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({column: _cell(value) for column, value in row.items()})


def remove_other_seeds(artifacts: Path, seeds: Sequence[int]) -> None:
    """Removes what earlier runs left for seeds that are no longer asked for: DVC leaves it, and
    whatever reads a stage's results of all seeds would depend on it. DVC's cache keeps it.
    """
    kept = {f"seed-{seed}" for seed in seeds}
    for directory in artifacts.glob("*/seed-*"):
        if directory.name not in kept:
            _remove(directory)
