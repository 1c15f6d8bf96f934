"""Labels in a CSV: a line for each image, with columns for its file, its label and perhaps its
part (train, validation or test).
"""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.lib.core import paths
from stages.lib.core.errors import UserError, printable, reason
from stages.lib.data import layout, listing

MOST_BYTES = 2**30
# The names of the columns, the likeliest first.
_FILE = (
    "file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "img",
    "image_name", "image_id", "id", "name",
)  # fmt: skip
_LABEL = (
    "label", "labels", "class", "class_name", "classname", "category", "target", "species", "breed",
    "diagnosis", "dx", "y",
)  # fmt: skip
_PART = ("split", "part", "set", "subset", "partition")


class Entry(NamedTuple):
    """file: path below the table's folder. part: None if it is to be drawn."""

    file: str
    label: str
    part: str | None


def is_table(path: str | Path) -> bool:
    """Whether a file has the name of a table."""
    return str(path).lower().endswith(paths.LABEL_TABLES)


def _rows(path: Path) -> list[list[str]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"data.root: {path}: more than {MOST_BYTES} bytes, too many for labels; divide it"
            )
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        return [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"data.root: {path}: not a CSV of UTF-8 text ({reason(error)}); save it as what"
            " Excel calls CSV UTF-8"
        ) from None


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _columns(path: Path, rows: list[list[str]]) -> tuple[int, int, int | None, int]:
    """The columns of file, label and part, and the number of the first line of data."""
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    file, label = _column(header, _FILE), _column(header, _LABEL)
    if file is not None and label is not None and file != label:
        return file, label, _column(header, _PART), 1
    if len(header) == 2 and PurePosixPath(header[0]).suffix and file is label is None:
        return 0, 1, None, 0  # no header: photo.jpg,cat
    raise UserError(
        f"data.root: {path}: no columns file and label; it has {layout.some(header) or 'none'};"
        " name them so"
    )


def _below(folder: Path) -> Iterator[str]:
    for path, _ in listing.walk(folder, on_trouble=lambda *_: None):
        if not path.endswith("/"):
            yield path


class _Finder:
    """Finds the files that a table names, also by their names alone and without a suffix."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.paths = set(_below(folder))
        self.by_name: dict[str, list[str]] = {}
        for path in sorted(self.paths):
            name = PurePosixPath(path).name
            for key in {name, PurePosixPath(name).stem}:
                self.by_name.setdefault(key, []).append(path)

    def find(self, name: str) -> list[str]:
        """The paths below the folder that a cell can mean."""
        name = name.replace("\\", "/")
        path = os.path.relpath(name, self.folder) if os.path.isabs(name) else os.path.normpath(name)  # noqa: PTH117
        if path in self.paths:
            return [path]
        return self.by_name.get(PurePosixPath(name).name, []) if "/" not in name else []


def _entries(path: Path, finder: _Finder, own_part: str | None) -> list[Entry]:
    rows = _rows(path)
    file, label, part, start = _columns(path, rows)
    found: dict[str, Entry] = {}
    missing = []
    for number, row in enumerate(rows[start:], start + 1):
        where = f"data.root: {path}, row {number}"
        cells = [cell.strip() for cell in row] + [""] * len(rows[0])
        if not cells[file] or not cells[label]:
            raise UserError(f"{where}: no {'label' if cells[file] else 'file'}; fill or remove it")
        role = own_part
        if part is not None:
            role = layout.part_of(cells[part])[0]
            if role is None:
                raise UserError(
                    f"{where}: {printable(cells[part]) or 'nothing'} is no part; allowed: train,"
                    " validation, test"
                )
        paths = finder.find(cells[file])
        if len(paths) > 1:
            raise UserError(
                f"{where}: {printable(cells[file])} may be {layout.some(paths)}; write the folder"
                " too"
            )
        if not paths:
            missing.append(cells[file])
            continue
        entry = Entry(paths[0], cells[label], role)
        if found.setdefault(entry.file, entry) != entry:
            raise UserError(
                f"{where}: {printable(entry.file)} has the label {printable(entry.label)} here and"
                f" {printable(found[entry.file].label)} above; an image has one label and one part"
            )
    if missing:
        raise UserError(
            f"data.root: {path} names {len(missing)} files that are not below its folder:"
            f" {layout.some(missing)}; put them there, or take their lines out"
        )
    return [entry for entry in found.values() if entry.part != layout.UNLABELLED]


def usable(root: Path, names: list[str]) -> list[str]:
    """Those of the files `names` that are tables with columns for files and labels."""
    found = []
    for name in filter(is_table, names):
        try:
            _columns(root / name, _rows(root / name))
        except UserError:
            continue
        found.append(name)
    return found


def read(root: Path, names: list[str]) -> list[Entry]:
    """The images of one table, or of several that are called after the parts (train.csv, test.csv).

    root: the folder below which the images are. names: of the tables in it.
    Raises UserError with the row if a line is wrong.
    """
    parts = [layout.part_of(PurePosixPath(name).stem)[0] for name in names]
    if len(names) > 1 and (None in parts or len(set(parts)) < len(parts)):
        raise UserError(
            f"data.root: {root} holds several tables of labels: {layout.some(names)}; set data.root"
            " to the path of one"
        )
    finder = _Finder(root)
    own = parts if len(names) > 1 else [None]
    entries = [
        entry
        for name, part in zip(names, own, strict=True)
        for entry in _entries(root / name, finder, part)
    ]
    twice = {entry.file for entry in entries}
    if len(twice) < len(entries):
        raise UserError(f"data.root: {root}: an image is in two of {layout.some(names)}")
    return sorted(entries)
