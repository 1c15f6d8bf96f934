"""The user's folder of images: ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/test/CLASS/*."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.lib.core.errors import UserError, copy_hint
from stages.lib.data import listing
from stages.lib.data.listing import printable

SHOWN = 20


class Listing(NamedTuple):
    """The files of a folder of images.

    files: paths relative to the root, those of a test/ folder last.
    labels: int64 [n].
    classes: names, by label.
    own_test: the number of files in a test/ folder.
    notes: lines for the user.
    """

    files: list[str]
    labels: np.ndarray
    classes: list[str]
    own_test: int
    notes: list[str]


def some(names: Iterable[str]) -> str:
    """Names for a line of text: the first few, and how many more."""
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(printable, names[:5])) + more


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of all other entries in a folder."""
    folders, others = [], []
    for entry in listing.visible(folder):
        (folders if listing.is_folder(entry) else others).append(entry.name)
    for name in others:
        if (folder / name).is_symlink() and not (folder / name).is_file():
            raise UserError(
                f"data.root: {printable(str(folder / name))} is a link that leads nowhere or to"
                " itself; remove or mend it"
            )
    return folders, others


def _parts(root: Path, folders: list[str]) -> list[str]:
    """["train", "test"] if that is the layout, [] if the folders are classes."""
    parts = {name.lower(): name for name in folders if name.lower() in ("train", "test")}
    # A class may be called train (car, bus, train); then it has no folders inside.
    if len(parts) < 2 and not any(_entries(root / name)[0] for name in parts.values()):
        return []
    if len(parts) < 2 or len(folders) > 2:
        raise UserError(
            f"data.root: {root} holds {some(folders)}, {some(parts.values())} with folders inside;"
            " allowed: train/ and test/ alone, or the class folders alone, which are then split"
        )
    return [parts["train"], parts["test"]]


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


def list_images(root: Path) -> Listing:
    """Lists every file of every class, in an order that depends on the names only. Opens no file.
    Raises UserError if the folder is missing or its layout is not one of the two.
    """
    if not root.is_dir():
        raise UserError(
            f"data.root: {root} is no folder; put the images in {os.path.abspath(root)}/CLASS/, or"  # noqa: PTH100  a link stays as it was typed
            f" set data.root to where they are{copy_hint()}"
        )
    folders, loose = _entries(root)
    parts = _parts(root, folders)
    classes: dict[str, list[str]] = {}
    for part in parts or [""]:
        classes[part], beside = _entries(root / part)
        loose = loose + [f"{part}/{name}" for name in beside if part]
    places = [f"{part}/{name}" if part else name for part in classes for name in classes[part]]
    _refuse_twins(places)
    for part, names in classes.items():
        if len(names) < 2:
            raise UserError(
                f"data.root: {root / part} has too few class folders ({some(names) or 'none'});"
                " allowed: at least two, each with its images inside"
            )
    odd = set.symmetric_difference(*map(set, classes.values())) if parts else ()
    if odd:
        raise UserError(
            f"data.root: classes in only one of {parts[0]}/ and {parts[1]}/: {some(sorted(odd))};"
            " each class needs a folder in both"
        )
    files = [_files(root, place) for place in places]
    empty = [place for place, own in zip(places, files, strict=True) if not own]
    if empty:
        raise UserError(
            f"data.root: {root} has class folders without a file: {some(empty)}; fill or remove"
            " them"
        )
    counts = list(map(len, files))
    names = classes[parts[0] if parts else ""]
    # With train/ and test/, each class has two places.
    labels = np.repeat(np.arange(len(places)) % len(names), counts)
    notes = []
    if loose:
        notes.append(f"data.root: files beside the class folders are not read: {some(loose)}")
    own_test = sum(counts[len(names) :])
    return Listing(list(chain(*files)), labels, list(map(printable, names)), own_test, notes)


def refuse_unreadable(
    listed: Listing,
    root: Path,
    readable: np.ndarray,
    unreadable: Sequence[dict[str, str]],
    most: int,
) -> None:
    """Raises UserError if too many files are unreadable, or all of a class in a part.

    listed: of `list_images` in the folder `root`.
    readable: bool [n], which of the files can be read.
    unreadable: `file` and `reason` of the others.
    most: how many may be unreadable.
    """
    if len(unreadable) > most:
        first = (
            f"data.root: {len(unreadable)} of {len(listed.files)} files in {root} cannot be read as"
            f" images; mend or remove them, or raise data.max_unreadable (now {most})"
        )
        raise UserError("\n".join([first, *described(unreadable)]))
    # ROOT/CLASS, or ROOT/test/CLASS.
    depth = 2 if listed.own_test else 1
    folders = ["/".join(name.split("/")[:depth]) for name in listed.files]
    lost = set(folders).difference(compress(folders, readable))
    if lost:
        folder = printable(min(lost))
        first = next(entry for entry in unreadable if entry["file"].startswith(f"{folder}/"))
        raise UserError(
            f"data.root: none of the files in {root}/{folder} can be read ({first['file']}:"
            f" {first['reason']}); mend them, or remove the class"
        )


def described(unreadable: Sequence[dict[str, str]]) -> list[str]:
    """A line for each of the first unreadable files, and how many more there are."""
    lines = [f"  {entry['file']}: {entry['reason']}" for entry in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        lines.append(f"  and {len(unreadable) - SHOWN} more")
    return lines
