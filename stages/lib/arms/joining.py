"""Joins what arms have left into the outputs of their stage."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from stages.lib.core import outputs, paths, records

# The tables of every stage that has arms.
TABLES = {paths.ROWS: list(records.COLUMNS), paths.REFUSED: records.REFUSED}
PREDICTIONS = (paths.PREDICTIONS, paths.VALIDATION_PREDICTIONS)


def join(
    parts: Sequence[Path],
    directory: Path,
    tables: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Writes the files of several arms into one folder. Tables of one name are joined line by line,
    predictions by their names; other files must have different names (ValueError). Tables
    and predictions that no arm has left are empty.

    parts: the folders of the arms, in the order of the lines.
    tables: the columns of the stage's tables beside TABLES, by file.
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
    for name, columns in {**TABLES, **tables}.items():
        if name not in found:
            outputs.write_csv(directory / name, columns, [])
    for name in PREDICTIONS:
        if name not in found:
            save_file({}, directory / name)
