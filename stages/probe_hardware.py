"""Describes the machine in a file that changes only when the machine does. Needs no torch."""

import json

from stages.lib import hardware, outputs, paths
from stages.lib.cli import run_stage


def main(params) -> None:
    found = hardware.describe()
    try:
        known = json.loads(paths.HARDWARE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if found != known:
        outputs.write_json(paths.HARDWARE, found)


if __name__ == "__main__":
    run_stage(main, reads=[])
