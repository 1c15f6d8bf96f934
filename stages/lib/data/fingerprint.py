"""Fingerprints of the user's images, network file and weights, by which changes are noticed. They
are computed on every repro, so no image is opened and nothing heavy is imported.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from stages.lib.core import custom_model
from stages.lib.core.errors import UserError, copy_hint
from stages.lib.core.params import NO_WEIGHTS
from stages.lib.data import listing


def of_images(data: Any) -> dict[str, Any]:
    """Source and root; for an image_folder also the number of files and a SHA-256.

    data: the params section. The digest covers the sorted paths below the root, with sizes and
    modification times. Both are None if the folder cannot be listed; the stage that reads the
    images reports that.
    """
    found: dict[str, Any] = {"source": data.source, "root": data.root}
    if data.source != "image_folder":
        return found
    root = listing.folder(data.root)
    if not os.path.isdir(root):  # noqa: PTH112  Path.is_dir raises where a name is too long
        return found | {"files": None, "sha256": None}
    digest = hashlib.sha256()

    def add(*values: str | int) -> None:
        # A file name has no zero byte, so two different lists of values never look the same.
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
    """The SHA-256 of the user's network file (with the files of its folder that it imports) and of
    the user's weights; None for what the params do not name.

    model: the params section. Raises UserError if a file is missing, before any image is prepared.
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
                f"model.weights: {model.weights}: not found; give a file's path, or"
                f" none{copy_hint()}"
            ) from None
    return found
