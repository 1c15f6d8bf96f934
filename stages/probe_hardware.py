"""Describes the machine in a file that changes only when the machine does. Needs no torch."""

from stages.lib import hardware, outputs, paths
from stages.lib.cli import run_stage
from stages.lib.errors import UserError


def main(params) -> None:
    found = hardware.describe()
    try:
        known = hardware.read(paths.HARDWARE)
    except UserError:
        known = None
    if found != known:
        outputs.write_json(paths.HARDWARE, found)


if __name__ == "__main__":
    run_stage(main, reads=[])
