"""Describes of each stage what modules it is made of, in files that change only when these do.

One file for each stage instead of dozens of dependencies: DVC reads and writes dvc.lock anew after
every stage, which takes seconds where all of them stand in it. Needs no torch.
"""

from pathlib import Path

from stages.lib import modules, outputs, paths
from stages.lib.cli import run_stage


def main(params) -> None:
    programs = [path for path in Path(modules.PACKAGE).glob("*.py") if path.stem != "__init__"]
    described = {paths.code_of(program.stem): program for program in programs}
    for path in set(paths.CODE.glob("*")) - set(described):
        path.unlink()
    for path, program in described.items():
        outputs.write_json_if_new(path, modules.fingerprint(program, Path()))


if __name__ == "__main__":
    run_stage(main, reads=[])
