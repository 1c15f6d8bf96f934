"""The files that a Python file names in its texts: `open("cfg.json")`, `HERE / f"{name}.json"`."""

import ast
import fnmatch
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

from stages.lib.core import paths

# Folders of results, of installed packages and of version control, and how many entries of the
# others are looked at.
_SKIPPED = {"site-packages", "node_modules", "venv", "__pycache__"}
_MOST_ENTRIES = 20_000
_MOST_FILES = 1000
_LONGEST = 300
_ENDING = re.compile(r".*\.\w+")


def _texts(tree: ast.Module) -> Iterator[str]:
    """Every text in the code; what an f-string fills in is `*`."""
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            parts = (part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
            yield "".join(map(str, parts))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.value


@lru_cache(maxsize=64)
def _short_texts(tree: ast.Module) -> set[str]:
    return {text for text in _texts(tree) if 0 < len(text) <= _LONGEST and text.isprintable()}


def is_skipped(path: Path, folder: Path) -> bool:
    """Whether a path, seen from the folder, is hidden, of an installed package, or a result of this
    pipeline.
    """
    parts = Path(os.path.relpath(path, folder)).parts
    hidden = any(part in _SKIPPED or (part[0] == "." and part != "..") for part in parts)
    return hidden or paths.is_result(Path(os.path.abspath(path)))  # noqa: PTH100  links stay


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_skipped(Path(place, name), folder))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def named(tree: ast.Module, folder: Path) -> set[Path]:
    """The files that exist under a name in the code: as a path from `folder` or from the
    repository's root, or anywhere below `folder` by the last part of their path. Of a folder below
    `folder` that is named, the files in it.
    """
    texts = _short_texts(tree)
    found: set[Path] = set()
    for text in texts:
        # Unlike those of Path, these functions raise nothing where a name is too long.
        for place in (str(folder / text), os.path.expanduser(text)):  # noqa: PTH111
            if os.path.isfile(place):  # noqa: PTH113
                found.add(Path(place))
            elif os.path.isdir(place) and folder.resolve() in Path(place).resolve().parents:  # noqa: PTH112
                found |= set(filter(Path.is_file, islice(Path(place).iterdir(), _MOST_FILES)))
    # `.json`, which the code puts behind a name, is *.json.
    last = {text.rpartition("/")[2] for text in texts if _ENDING.fullmatch(text)}
    patterns = {f"*{name}" if name.startswith(".") else name for name in last}
    for file in islice(_below(folder), _MOST_ENTRIES) if patterns else ():
        if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in patterns):
            found.add(file)
    return {file for file in found if file.suffix != ".py" and not is_skipped(file, folder)}
