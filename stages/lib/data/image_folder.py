"""The user's images: in folders of classes, with or without parts above, or named in a CSV."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from stages.lib.core.errors import UserError, printable
from stages.lib.core.paths import BESIDE, PARTS
from stages.lib.data import label_table, layout, listing
from stages.lib.data.layout import some

SHOWN = 20


class Listing(NamedTuple):
    """The files of a folder of images.

    root: the folder.
    files: paths relative to it.
    labels: int64 [n].
    classes: names, by label.
    parts: int64 [n], indices into PARTS; those of "train" are to be divided further.
    notes: lines for the user.
    """

    root: Path
    files: list[str]
    labels: np.ndarray
    classes: list[str]
    parts: np.ndarray
    notes: list[str]


def _refuse_twins(places: Iterable[str]) -> None:
    """Raises UserError if the last parts of two paths differ in case only."""
    seen: dict[str, str] = {}
    for place in places:
        name = place.rpartition("/")[2]
        # The same letter (é) may be one character or two that look alike.
        key = unicodedata.normalize("NFC", name).casefold()
        other = seen.setdefault(key, place)
        if other.rpartition("/")[2] != name:
            raise UserError(
                f"data.root: {printable(other)} and {printable(place)} are the same class in"
                " different spelling; give them one name"
            )


def _is_beside(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in BESIDE


def _files(root: Path, place: str) -> list[str]:
    """Paths, relative to the root, of all files below one class folder."""

    def stop(path: str, reason: str) -> None:
        raise UserError(
            f"data.root: {printable(str(root / place / path))}: {reason}; remove or mend it"
        )

    return [
        f"{place}/{path}"
        for path, _ in listing.walk(root / place, on_trouble=stop)
        if not path.endswith("/")
    ]


def _stored(name: str) -> str:
    """A class name as JSON can hold it: bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _refuse_other_classes(named: Iterable[tuple[str, str | None]], root: Path) -> None:
    """Raises UserError if a part lacks a class. named: the class and the part of each place."""
    classes: dict[str, set[str]] = {}
    for name, part in named:
        classes.setdefault(part or PARTS[0], set()).add(name)
    first = next(part for part in PARTS if part in classes)
    for part in classes:
        odd = classes[first] ^ classes[part]
        if odd:
            raise UserError(
                f"data.root: {root}: classes in only one of {first} and {part}:"
                f" {some(sorted(odd))}; each class needs images in both"
            )


def _from_table(root: Path, names: list[str], notes: list[str]) -> Listing:
    entries = label_table.read(root, names)
    labels = {entry.label for entry in entries}
    if len(labels) < 2:
        raise UserError(
            f"data.root: {root / names[0]} has too few labels ({some(labels) or 'none'}); allowed:"
            " at least two"
        )
    _refuse_twins(labels)
    _refuse_other_classes(((entry.label, entry.part) for entry in entries), root / names[0])
    # 2 before 10.
    classes = sorted(labels, key=lambda name: (int(name) if name.isdecimal() else -1, name))
    return Listing(
        root,
        [entry.file for entry in entries],
        np.array([classes.index(entry.label) for entry in entries], np.int64),
        classes,
        np.array([PARTS.index(entry.part or "train") for entry in entries], np.int64),
        [*notes, f"data.root: labels are those in {some(names)}"],
    )


def _no_labels(root: Path, found: layout.Layout) -> UserError:
    what = f"holds {some(found.found)}" if found.found else "has no folders"
    hint = ""
    if found.found and all(map(layout.looks_like_a_part, found.found)):
        hint = ", which look like parts of a set, without class folders inside"
    return UserError(
        f"data.root: {root} has too few class folders ({some(found.found) or 'none'}): it"
        f" {what}{hint}; allowed: at least two classes, each a folder with its images inside, or a"
        " CSV with the columns file and label"
    )


def list_images(root: Path) -> Listing:
    """Lists every file of every class, in an order that depends on the names only. Opens no image.

    root: a folder, or a CSV with the columns file and label. Raises UserError if it is missing or
    of no layout that data/README.md describes.
    """
    if root.is_file() and label_table.is_table(root):
        return _from_table(root.parent, [root.name], [])
    if not root.is_dir():
        raise UserError(
            f"data.root: {root} is no folder and no CSV; put the images in"
            f" {os.path.abspath(root)}/CLASS/, or set data.root to where they are"  # noqa: PTH100  a link stays as it was typed
        )
    found = layout.find(root)
    tables = label_table.usable(root, found.loose)
    if len(found.folders) < 2:
        if not tables:
            raise _no_labels(root, found)
        folder = PurePosixPath(tables[0]).parent
        names = [PurePosixPath(table).name for table in tables]
        return _from_table(root / folder, names, found.notes)
    _refuse_twins(folder.place for folder in found.folders)
    _refuse_other_classes(((folder.name, folder.part) for folder in found.folders), root)
    files = [_files(root, folder.place) for folder in found.folders]
    beside = [path for own in files for path in own if _is_beside(path)]
    files = [[path for path in own if not _is_beside(path)] for own in files]
    empty = [folder.place for folder, own in zip(found.folders, files, strict=True) if not own]
    if empty:
        raise UserError(
            f"data.root: {root} has class folders without a file: {some(empty)}; fill or remove"
            " them"
        )
    notes = list(found.notes)
    if beside:
        kinds = sorted({PurePosixPath(path).suffix.lower() for path in beside})
        notes.append(
            f"data.root: {len(beside)} of the files are films or notes by their names"
            f" ({', '.join(kinds)}), and not read"
        )
    if found.loose:
        hint = f" (data.root: {root / tables[0]} would take its labels)" if tables else ""
        notes.append(
            f"data.root: files beside the class folders are not read: {some(found.loose)}{hint}"
        )
    names = list(dict.fromkeys(folder.name for folder in found.folders))
    counts = list(map(len, files))
    labels = np.repeat([names.index(folder.name) for folder in found.folders], counts)
    parts = np.repeat([PARTS.index(folder.part or "train") for folder in found.folders], counts)
    return Listing(root, list(chain(*files)), labels, list(map(_stored, names)), parts, notes)


def refuse_unreadable(
    listed: Listing, readable: np.ndarray, unreadable: Sequence[dict[str, str]], most: int
) -> None:
    """Raises UserError if too many files are unreadable, or all of a class in a part.

    listed: of `list_images`.
    readable: bool [n], which of the files can be read.
    unreadable: `file` and `reason` of the others.
    most: how many may be unreadable.
    """
    root = listed.root
    if len(unreadable) > most:
        first = (
            f"data.root: {len(unreadable)} of {len(listed.files)} files in {root} cannot be read as"
            f" images; mend or remove them, or raise data.max_unreadable (now {most})"
        )
        raise UserError("\n".join([first, *described(unreadable)]))
    groups = listed.parts * len(listed.classes) + listed.labels
    lost = np.setdiff1d(groups, groups[readable])
    if len(lost):
        part, label = divmod(int(lost[0]), len(listed.classes))
        first = unreadable[int(np.flatnonzero(groups[~readable] == lost[0])[0])]
        place = f" in {PARTS[part]}" if listed.parts.any() else ""
        raise UserError(
            f"data.root: {root}: none of the files of {printable(listed.classes[label])}{place}"
            f" can be read ({first['file']}: {first['reason']}); mend them, or remove the class"
        )


def described(unreadable: Sequence[dict[str, str]]) -> list[str]:
    """A line for each of the first unreadable files, and how many more there are."""
    lines = [f"  {entry['file']}: {entry['reason']}" for entry in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        lines.append(f"  and {len(unreadable) - SHOWN} more")
    return lines
