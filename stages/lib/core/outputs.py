"""Writes results completely or not at all.

A result is written beside its final place and renamed at the very end. A kill at any moment leaves
the old result or none, never half of one.
"""

import csv
import errno
import filecmp
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.lib.core.errors import UserError

PARTIAL = ".partial"
# A million class names or the report's data take less.
MOST_JSON_BYTES = 2**28
NO_SPACE = os.strerror(errno.ENOSPC)


def _partial(final: Path) -> Path:
    """Where this process writes what will become `final`."""
    return final.with_name(f".{final.name}.{os.getpid()}{PARTIAL}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return pid != os.getpid()  # an earlier process may have had this number


def _remove_leftovers(folder: Path, name: str) -> None:
    """Removes what killed processes left of outputs with this name, which may be a pattern."""
    for leftover in folder.glob(f".{name}.*{PARTIAL}"):
        pid = leftover.name.removesuffix(PARTIAL).rpartition(".")[2]
        if pid.isdigit() and not _is_running(int(pid)):
            _remove(leftover)


def _put_in_place(partial: Path, final: Path) -> None:
    if final.is_file() and partial.is_file() and filecmp.cmp(partial, final, shallow=False):
        return
    if not final.is_dir():
        partial.replace(final)
        return
    old = _partial(final.with_name(f"{final.name}.old"))
    final.rename(old)
    try:
        partial.rename(final)
    except OSError:
        old.rename(final)
        raise
    _remove(old)


def _last_written(partials: Mapping[Path, Path]) -> Path | None:
    """The final path of the file that was written last: the disk was full at it."""
    written = [
        (file.stat().st_mtime_ns, final / file.relative_to(partial))
        for final, partial in partials.items()
        for file in (partial.rglob("*") if partial.is_dir() else [partial])
        if file.is_file()
    ]
    return max(written)[1] if written else None


@contextmanager
def whole(
    finals: Sequence[Path], check: Callable[[], None] = lambda: None
) -> Iterator[dict[Path, Path]]:
    """Yields for each final path a path beside it, to which a file or a folder is to be written. If
    the block ends without an error and `check` raises nothing, all are moved to their final paths.

    If the block raises an error, or leaves a path unwritten (RuntimeError), nothing changes. Raises
    UserError if the disk is full. Leftovers of killed runs are removed.
    """
    partials = {final: _partial(final) for final in finals}
    for final in finals:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final.parent, final.name)
    try:
        yield partials
        check()
        missing = [str(final) for final, partial in partials.items() if not partial.exists()]
        if missing:
            raise RuntimeError(f"not written: {', '.join(missing)}")
        for final, partial in partials.items():
            _put_in_place(partial, final)
    except Exception as error:
        # Libraries raise it as errors of their own, and Python without the file's name.
        if NO_SPACE not in str(error):
            raise
        place = _last_written(partials) or os.path.commonpath(finals)
        raise UserError(f"{place}: {NO_SPACE}; make room and run `dvc repro` again") from None
    finally:
        for partial in partials.values():
            _remove(partial)


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """As `whole`, for one file."""
    with whole([final]) as partials:
        yield partials[final]


def write_text(final: Path, text: str) -> None:
    """Writes a UTF-8 file in one step (temporary file, then rename)."""
    with whole_file(final) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(final: Path, value: Any) -> None:
    """Writes `value` as indented JSON, keys in the given order. ValueError for NaN and infinity."""
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> Any:
    """The value in a JSON file. UserError with the remedy if it is missing or damaged."""
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise UserError(f"{path}: more than {MOST_JSON_BYTES} bytes; {remedy}")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {remedy}") from None
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path}: not JSON (cut short?); {remedy}") from None


def plain(value: Any) -> Any:
    """A value for JSON: numbers with six significant digits, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    if isinstance(value, float):
        return _cell(value) if math.isfinite(value) else None
    return value


def _cell(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write_csv(final: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table. Floats have six significant digits, None is an empty cell. ValueError for a
    key that is not in `columns`.
    """
    write_text(final, table_text(columns, rows))


def table_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of a table, as in `write_csv`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _cell(value) for column, value in row.items()})
    return text.getvalue()


def remove_other_seeds(artifacts: Path, seeds: Sequence[int]) -> None:
    """Removes the results of seeds that are no longer in the params. DVC leaves them in place, and
    stages that depend on the results of all seeds would depend on them. DVC's cache keeps them.
    """
    wanted = {f"seed-{seed}" for seed in seeds}
    for stage in artifacts.glob("*/"):
        _remove_leftovers(stage, "seed-*")
        # What is kept beside `seed-0` is called `.seed-0.arms` and the like.
        for path in (*stage.glob("seed-*"), *stage.glob(".seed-*")):
            if path.suffix != PARTIAL and path.name.strip(".").partition(".")[0] not in wanted:
                _remove(path)
