"""What tells that a person's images, network or weights have changed. Runs on every repro, so it
opens no image and imports nothing heavy.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from stages.lib.core import custom_model
from stages.lib.core.errors import UserError
from stages.lib.core.params import NO_WEIGHTS
from stages.lib.data import listing


def of_images(data: Any) -> dict[str, Any]:
    """Source and root; for an image_folder also how many files there are, and a SHA-256.

    data: the params section. The digest is over the sorted paths below the root, with sizes and
    times of change. Both are None where the folder cannot be listed: to say so is for the stage
    that reads the images.
    """
    found: dict[str, Any] = {"source": data.source, "root": data.root}
    if data.source != "image_folder":
        return found
    root = listing.folder(data.root)
    if not os.path.isdir(root):  # noqa: PTH112  Path.is_dir raises where a name is too long
        return found | {"files": None, "sha256": None}
    digest = hashlib.sha256()

    def add(*values: str | int) -> None:
        # No file's name has a zero byte in it, so no two lists of values read the same.
        digest.update(b"\0".join(os.fsencode(str(value)) for value in values) + b"\0\0")

    files = 0
    for path, entry in listing.walk(root, on_trouble=add):
        if path.endswith("/"):
            add(path)
            continue
        files += 1
        try:
            status = entry.stat()
        except OSError:
            add(path, "no file")
        else:
            add(path, status.st_size, status.st_mtime_ns)
    return found | {"files": files, "sha256": digest.hexdigest()}


def of_network(model: Any) -> dict[str, Any]:
    """The SHA-256 of the person's own network file, with what it imports from beside it, and of
    their weights; None where the params name none.

    model: the params section. UserError where a file is missing: said here, before any image is
    prepared.
    """
    found: dict[str, Any] = {"code": None, "weights": None}
    if custom_model.is_own(model.name):
        custom_model.must_exist(model.name)
        found["code"] = custom_model.fingerprint(model.name)
    if model.weights != NO_WEIGHTS:
        try:
            with Path(model.weights).open("rb") as file:
                found["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise UserError(
                f"model.weights: {model.weights}: not found; give a file's path, or none"
            ) from None
        except OSError as error:
            raise UserError(
                f"model.weights: {model.weights}: cannot be read ({error.strerror})"
            ) from None
    return found
