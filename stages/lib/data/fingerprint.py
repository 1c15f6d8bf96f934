"""Fingerprints of the user's images, network file and weights, by which changes are noticed. They
are computed on every repro, so a file is read only once, and nothing heavy is imported.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.lib.core import custom_model, outputs, paths
from stages.lib.core.errors import UserError
from stages.lib.core.params import NONE
from stages.lib.core.repository import person_path, person_repository
from stages.lib.data import content, label_table, listing

# So many files that a network opens are watched.
MOST_OPENED = 1000


def _below(root: Path) -> Iterator[tuple[str, str]]:
    """(path below the root, path) of every file and folder, or why a folder was not read."""
    troubles: list[tuple[str, str]] = []
    for path, entry in listing.walk(root, on_trouble=lambda *trouble: troubles.append(trouble)):
        yield path, entry.path
    yield from troubles


def _of_table(table: Path) -> Iterator[tuple[str, str]]:
    """The same for the files that a CSV names, and itself."""
    for name in [
        table.name,
        *(entry.file for entry in label_table.read(table.parent, [table.name])),
    ]:
        yield name, os.path.join(table.parent, name)  # noqa: PTH118  this runs for every file


def of_images(data: Any) -> dict[str, Any]:
    """Source and root; for an image_folder also the number of files and a SHA-256.

    data: the params section. The digest covers the sorted paths below the root, with the SHA-256 of
    their contents: copies of a folder have the same. Both are None if the folder cannot be listed;
    the stage that reads the images reports that.
    """
    found: dict[str, Any] = {"source": data.source, "root": data.root}
    if data.source != "image_folder":
        return found
    missing = found | {"files": None, "sha256": None}
    root = person_path(data.root)
    try:
        if os.path.isdir(root):  # noqa: PTH112  Path.is_dir raises where a name is too long
            listed = list(_below(root))
        elif label_table.is_table(root):
            listed = list(_of_table(root))
        else:
            return missing
    except (OSError, UserError):
        return missing
    digest = hashlib.sha256()
    files = []
    for path, place in listed:
        # A file name has no zero byte, so two different lists of values never look the same.
        digest.update(os.fsencode(path) + b"\0")
        try:
            status = os.stat(place)  # noqa: PTH116  this runs for every file of large sets
        except OSError as error:
            digest.update(os.fsencode(error.strerror) + b"\0\0")
            continue
        if stat.S_ISREG(status.st_mode):
            files.append((place, status))
    memory = paths.CONTENT / hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    for one in content.hashes(files, person_repository() / memory):
        digest.update(one.encode() + b"\0")
    return found | {"files": len(files), "sha256": digest.hexdigest()}


def _offered(data: Any, prepared: Path) -> dict[str, int]:
    """What the factory is called with: as for the data that were prepared last, else a guess."""
    try:
        meta = outputs.read_json(prepared / paths.META, "")
        classes, (channels, size, _) = len(meta["classes"]), meta["image_shape"]
    except (UserError, KeyError, TypeError, ValueError):
        classes, channels = 10, 1 if data.color == "grey" else 3
        size = 32 if data.image_size == "auto" else data.image_size
    return {"num_classes": classes, "in_channels": channels, "image_size": size}


def _opened(name: str, code: str, offered: dict[str, int]) -> dict[str, str]:
    """The SHA-256 of the files below its folder that the user's network opens, and whose names are
    computed as it runs. It is built for that, once for each version of its code.
    """
    folder = custom_model.split(name)[0].parent
    key = hashlib.sha256(f"{name} {code} {offered}".encode()).hexdigest()[:16]
    memory = person_repository() / paths.OPENED / key
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        try:
            custom_model.call(name, offered)
        except UserError:  # perhaps for want of the right sizes; train_baseline tells it
            memory = None
        found = [path.as_posix() for path in custom_model.unwatched(name)][:MOST_OPENED]
        if memory:
            outputs.write_text(memory, json.dumps(found))
    files = [(path, folder / path) for path in found]
    files = [(path, str(place), place.stat()) for path, place in files if place.is_file()]
    names = [path for path, *_ in files]
    known = content.hashes([one for _, *one in files], person_repository() / paths.CONTENT / key)
    return dict(zip(names, known, strict=True))


def of_network(section: str, model: Any, data: Any, prepared: Path) -> dict[str, Any]:
    """The SHA-256 of the user's network file (with the files of its folder that it imports or
    names), of others that it opens, of the user's weights and of the list of their classes; None
    for what the params do not name.

    section: of the params, by which errors name it.
    model: its values.
    data: the section of that name.
    prepared: the folder of the images that were prepared last, if any were.

    Raises UserError if a file is missing, before any image is prepared.
    """
    found: dict[str, Any] = {"code": None, "weights": None, "class_index": None}
    if custom_model.is_own(model.name):
        custom_model.must_exist(model.name)
        found["code"] = custom_model.fingerprint(model.name)
        found["opened"] = _opened(model.name, found["code"], _offered(data, prepared))
    for key in ("weights", "class_index"):
        name = getattr(model, key, NONE)
        if name == NONE:
            continue
        path = person_path(name)
        try:
            with path.open("rb") as file:
                found[key] = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise UserError(
                f"{section}.{key}: {path}: not found; give a file's path, or none"
            ) from None
    return found
