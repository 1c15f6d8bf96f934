"""Describes the person's own inputs in files that change only when they do. Needs no torch."""

import json
from pathlib import Path
from typing import Any

from stages.lib import fingerprint, listing, outputs, paths
from stages.lib.cli import run_stage


def note(path: Path, found: dict[str, Any]) -> None:
    """Writes the description unless the file says the same already."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if found != known:
        outputs.write_json(path, found)


def main(params) -> None:
    # Checked here as well: before prepare_data runs, dvc removes what it wrote.
    listing.must_be_apart(params.data, paths.PREPARED)
    note(paths.INPUT_DATA, fingerprint.of_images(params.data))
    note(paths.INPUT_MODEL, fingerprint.of_network(params.model))


if __name__ == "__main__":
    run_stage(main, reads=["data", "model"])
