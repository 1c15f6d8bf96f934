"""The user's own network: `path/to/file.py:factory`, found, fingerprinted, loaded and called."""

import ast
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.errors import UserError


def is_own(name: str) -> bool:
    """Whether a `model.name` names a file of the user's rather than a network of the catalogue."""
    file, colon, factory = name.rpartition(":")
    return bool(colon) and file.endswith(".py") and factory.isidentifier()


def split(name: str) -> tuple[Path, str]:
    """The file and the factory of `path/to/file.py:factory`."""
    file, _, factory = name.rpartition(":")
    return Path(file), factory


def _imported(file: Path, tree: ast.Module) -> set[Path]:
    """Modules and packages beside `file` that it imports, as files."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = set()
    for name in names:
        parts = name.split(".")
        # Importing a.b.c runs a/__init__.py and a/b/__init__.py as well.
        for end in range(1, len(parts) + 1):
            stem = file.parent.joinpath(*parts[:end])
            candidates |= {stem.with_suffix(".py"), stem / "__init__.py"}
    return {candidate for candidate in candidates if candidate.is_file()}


def fingerprint(name: str) -> str | None:
    """SHA-256 over the file and whatever it imports from its own folder; None where it is missing.

    Reads, and runs nothing.
    """
    start, _ = split(name)
    if not start.is_file():
        return None
    reached: dict[str, bytes] = {}
    waiting = [start]
    while waiting:
        file = waiting.pop()
        key = file.relative_to(start.parent).as_posix()
        if key in reached:
            continue
        reached[key] = file.read_bytes()
        try:
            waiting += _imported(file, ast.parse(reached[key]))
        except (SyntaxError, ValueError):  # loading it will say so, with the line
            continue
    digest = hashlib.sha256()
    for key in sorted(reached):
        digest.update(f"{key} {len(reached[key])}\n".encode() + reached[key])
    return digest.hexdigest()


def _blame(file: Path, error: BaseException) -> str:
    """The last line of the user's own code in a traceback, and what was raised there."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    lines = [
        f"{file}, line {frame.lineno}: "
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == file.resolve()
    ]
    text = str(error).splitlines()[0] if str(error) else "no message"
    return f"{lines[-1] if lines else f'{file}: '}{type(error).__name__}: {text}"


def load(name: str) -> Any:
    """The factory, from its file. The file's folder is importable while the file runs.

    UserError where the file or the factory is missing, or the file cannot be imported.
    """
    file, factory = split(name)
    if not file.is_file():
        raise UserError(f"model.name: {file}: not found; give a path from the repository's root")
    folder = str(file.resolve().parent)
    spec = importlib.util.spec_from_file_location(f"own_{file.stem}", file.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        raise UserError(f"model.name: {_blame(file, error)}") from None
    finally:
        sys.path.remove(folder)
    found = getattr(module, factory, None)
    if not callable(found):
        known = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        raise UserError(
            f"model.name: {file} has nothing to call by the name {factory};"
            f" it has {', '.join(known) or 'no function'}"
        )
    return found


def call(name: str, offered: Mapping[str, Any]) -> Any:
    """What the factory returns, given those of the `offered` keywords that it takes.

    UserError, with the line of the user's file, where it raises.
    """
    factory = load(name)
    try:
        takes = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        takes = ()
    everything = any(one.kind is one.VAR_KEYWORD for one in takes)
    named = {one.name for one in takes if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    wanted = {key: value for key, value in offered.items() if everything or key in named}
    try:
        return factory(**wanted)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        given = ", ".join(f"{key}={value}" for key, value in wanted.items())
        raise UserError(f"model.name: {name}({given}): {_blame(split(name)[0], error)}") from None
