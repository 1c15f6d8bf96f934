"""Joins what arms have left into the outputs of their stage."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from stages.lib.core import outputs, paths, records

# What a stage without arms leaves.
EMPTY = {paths.ROWS: list(records.COLUMNS), paths.REFUSED: records.REFUSED}
PREDICTIONS = (paths.PREDICTIONS, paths.VALIDATION_PREDICTIONS)


def join(parts: Sequence[Path], directory: Path) -> None:
    """Writes the files of several arms into one folder. Tables of one name are joined line by line,
    predictions by their names; other files must have different names (ValueError). Without
    arms, tables and predictions are empty.

    parts: the folders of the arms, in the order of the lines.
    """
    # Where one arm is all, numpy is not needed.
    from safetensors.numpy import load_file, save_file

    found: dict[str, list[Path]] = {}
    for part in parts:
        for file in sorted(part.iterdir()):
            found.setdefault(file.name, []).append(file)
    for name, files in found.items():
        final = directory / name
        if name in PREDICTIONS:
            save_file({key: one for file in files for key, one in load_file(file).items()}, final)
        elif final.suffix == paths.TABLE:
            lines = [file.read_bytes().splitlines(keepends=True) for file in files]
            final.write_bytes(b"".join(lines[0][:1] + [line for one in lines for line in one[1:]]))
        elif len(files) > 1:
            raise ValueError(f"{name}: written by more than one arm")
        else:
            shutil.copyfile(files[0], final)
    if not parts:
        for name, columns in EMPTY.items():
            outputs.write_csv(directory / name, columns, [])
        for name in PREDICTIONS:
            save_file({}, directory / name)
