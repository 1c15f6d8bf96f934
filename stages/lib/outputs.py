"""Writing results so that they are there whole or not at all.

A stage builds a directory beside its final place and renames it at the very end, so a kill
at any moment leaves the old result or none, never half of one.
"""

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def _remove_leftovers(final: Path) -> None:
    for leftover in final.parent.glob(f".{final.name}.*{PARTIAL}"):
        pid = leftover.name.removesuffix(PARTIAL).rpartition(".")[2]
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
            leftover.unlink(missing_ok=True)


def _put_in_place(new: Path, final: Path) -> None:
    if not final.exists():
        new.rename(final)
        return
    old = _partial(final.with_name(f"{final.name}.old"))
    shutil.rmtree(old, ignore_errors=True)  # an earlier process may have had this pid
    final.rename(old)
    try:
        new.rename(final)
    except OSError:
        old.rename(final)
        raise
    shutil.rmtree(old)


@contextmanager
def whole_directory(final: Path) -> Iterator[Path]:
    """Yields an empty directory that takes `final`'s place when the block ends well.

    If the block raises, nothing changes at `final`. Leftovers of killed runs are removed.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(final)
    partial = _partial(final)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        _put_in_place(partial, final)
    finally:
        if partial.exists():
            shutil.rmtree(partial)


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """Yields a path that takes `final`'s place when the block, which writes a file there, ends
    well. If it raises, nothing changes at `final`.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(final)
    try:
        yield partial
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    """Writes a UTF-8 file in one step (temporary file, then rename)."""
    with whole_file(final) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(final: Path, value: Any) -> None:
    """Writes `value` as indented JSON, keys in the order given; NaN and infinity raise
    ValueError.
    """
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_if_new(final: Path, value: Any) -> None:
    """As `write_json`, but a file that says the same already is left alone."""
    try:
        known = json.loads(final.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if value != known:
        write_json(final, value)


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
