"""Describes the person's own inputs in a file that changes only when they do. Needs no torch."""

import json

from stages.lib import fingerprint, listing, outputs, paths
from stages.lib.cli import run_stage


def main(params) -> None:
    # Checked here as well: before prepare_data runs, dvc removes what it wrote.
    listing.must_be_apart(params.data, paths.PREPARED)
    found = fingerprint.fingerprint(params.data)
    try:
        known = json.loads(paths.INPUT_DATA.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if found != known:
        outputs.write_json(paths.INPUT_DATA, found)


if __name__ == "__main__":
    run_stage(main, reads=["data"])
