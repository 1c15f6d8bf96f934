"""Which of the project's files a program is made of: its own, those that it imports, and theirs."""

import ast
import hashlib
from pathlib import Path

PACKAGE = "stages"


def _imported(module: Path, root: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    files = (
        root / f"{name.replace('.', '/')}.py" for name in names if name.startswith(f"{PACKAGE}.")
    )
    return {file for file in files if file.exists()}


def closure(program: Path, root: Path) -> list[Path]:
    """All of the project's modules that a program reads when it runs, itself first, the others by
    path. root: the folder that holds the package.
    """
    reached, waiting = {program}, [program]
    while waiting:
        more = _imported(waiting.pop(), root) - reached
        reached |= more
        waiting += more
    return [program, *sorted(reached - {program})]


def fingerprint(program: Path, root: Path) -> dict[str, str]:
    """The SHA-256 of each of these modules, by its path below root."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in closure(program, root)
    }
