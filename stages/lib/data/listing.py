"""Walking folders of a person's files: sorted, hidden files left out, loops found."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages.lib.core.errors import UserError

# What file managers and archivers leave behind; names that start with a dot are hidden as well.
_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}


def folder(root: str) -> Path:
    """data.root as a path, `~` being the home directory."""
    try:
        return Path(root).expanduser()
    except RuntimeError:
        raise UserError(f"data.root: {root}: there is no such home directory") from None


def must_be_apart(data: Any, results: Path) -> None:
    """UserError where data.root is the folder of `results` or inside it, and so overwritten, or
    where images are looked for in a folder that holds `results`. data: the params section.
    """
    # Unlike Path.resolve, these take a link to itself.
    root, written = (Path(os.path.realpath(path)) for path in (folder(data.root), results))
    if root.is_relative_to(written):
        raise UserError(
            f"data.root: {data.root} is where the prepared arrays are written, and what lies there"
            " is deleted; put the images somewhere else"
        )
    if data.source == "image_folder" and written.is_relative_to(root):
        raise UserError(
            f"data.root: {data.root} holds {results}, where the prepared arrays are written; put"
            " the images into a folder of their own"
        )


def printable(name: str) -> str:
    """A file's name for people: bytes that are no UTF-8 and control characters escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the person's (.DS_Store, Thumbs.db, ._x, …)."""
    return name.startswith(".") or name.lower() in _CLUTTER


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads nowhere is not."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def visible(folder: str | Path) -> list[os.DirEntry]:
    """What lies in a folder, hidden files left out, sorted by name. Raises OSError."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if not is_hidden(entry.name)),
            key=lambda entry: entry.name,
        )


def walk(
    root: str | Path, on_trouble: Callable[[str, str], None]
) -> Iterator[tuple[str, os.DirEntry]]:
    """(path relative to `root`, entry) of every file and folder below it, links followed.

    A folder's path ends in /. Sorted by name within a folder, files before the folders' content.
    A folder that links back to one above it, or cannot be read, is handed to `on_trouble` (path,
    reason) and left out.
    """
    pending: list[tuple[str, str, tuple]] = [("", os.fspath(root), ())]
    while pending:
        prefix, place, above = pending.pop()
        try:
            status = os.stat(place)  # noqa: PTH116  this runs for every folder of large sets
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                on_trouble(prefix, "a link that leads back to a folder above it")
                continue
            found = visible(place)
        except OSError as error:
            on_trouble(prefix, error.strerror or str(error))
            continue
        folders = []
        for entry in found:
            if is_folder(entry):
                yield f"{prefix}{entry.name}/", entry
                folders.append((f"{prefix}{entry.name}/", entry.path, (*above, identity)))
            else:
                yield prefix + entry.name, entry
        pending.extend(reversed(folders))
