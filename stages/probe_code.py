"""Describes of each stage what modules it is made of, in files that change only when these do.

One file for each stage instead of dozens of dependencies: DVC reads and writes dvc.lock anew after
every stage, which takes seconds where all of them stand in it. Needs no torch.
"""

from pathlib import Path

from stages.lib import modules, outputs, paths
from stages.lib.cli import run_stage


def main(params) -> None:
    programs = [path for path in Path("stages").glob("*.py") if path.stem != "__init__"]
    for path in paths.CODE.glob("*"):
        if path.stem not in {program.stem for program in programs}:
            path.unlink()
    for program in programs:
        found = modules.fingerprint(program, Path())
        outputs.write_json_if_new(paths.code_of(program.stem), found)


if __name__ == "__main__":
    run_stage(main, reads=[])
