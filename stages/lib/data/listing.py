"""Walks the user's folders: sorted, without hidden files, and without following loops of links."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages.lib.core.errors import UserError
from stages.lib.core.repository import person_path

# What file managers, archivers, file servers and systems leave in folders: how hidden names and
# those of files begin, and whole names of folders.
_HIDDEN = (".", "$recycle.bin", "thumbs.db", "ehthumbs", "desktop.ini", "icon\r")
_CLUTTER = {
    "__macosx", "__pycache__", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle",
    "#snapshot", "lost+found", "lost.dir", "network trash folder", "recycled", "recycler",
    "system volume information", "temporary items", "thevolumesettingsfolder",
    *(f"found.{number:03}" for number in range(10)),
}  # fmt: skip


def must_be_apart(data: Any, results: Path) -> None:
    """Raises UserError if data.root lies in the folder `results`, which is overwritten, or if the
    images are searched for in a folder that contains `results`. data: the params section.
    """
    # Unlike Path.resolve, os.path.realpath accepts a link to itself.
    root, written = (Path(os.path.realpath(path)) for path in (person_path(data.root), results))
    around = data.source == "image_folder" and written.is_relative_to(root)
    if around or root.is_relative_to(written):
        raise UserError(
            f"data.root: {data.root} {'holds' if around else 'lies in'} {results}, where the"
            " prepared arrays replace what lies there; put the images into a folder of their own"
        )


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder or a link to one. A link that leads nowhere is not."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or of the system's making."""
    return name.lower() in _CLUTTER or name.lower().startswith(_HIDDEN)


def visible(folder: str | Path) -> list[os.DirEntry]:
    """The user's own entries of a folder, sorted by name, without .DS_Store, Thumbs.db, ._x, …
    Raises OSError.
    """
    with os.scandir(folder) as entries:
        own = [entry for entry in entries if not is_clutter(entry.name)]
    return sorted(own, key=lambda entry: entry.name)


def walk(
    root: str | Path, on_trouble: Callable[[str, str], None]
) -> Iterator[tuple[str, os.DirEntry]]:
    """Yields (path relative to `root`, entry) for every file and folder below it; follows links.

    A folder's path ends in /. Entries of a folder are sorted by name; the contents of its folders
    come after them. For a folder that links back to one above it, or cannot be read,
    `on_trouble(path, reason)` is called and its contents are left out.
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
