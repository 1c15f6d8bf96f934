"""Describes the machine in a file that changes only when the machine does. Needs no torch."""

from stages.lib import hardware, outputs, paths
from stages.lib.cli import run_stage


def main(params) -> None:
    outputs.write_json_if_new(paths.HARDWARE, hardware.describe())


if __name__ == "__main__":
    run_stage(main, reads=[])
