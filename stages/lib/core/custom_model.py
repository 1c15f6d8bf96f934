"""The user's own network: `path/to/file.py:factory`, found, fingerprinted, loaded and called."""

import ast
import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import safetensors

from stages.lib.core import named_files
from stages.lib.core.errors import UserError
from stages.lib.core.repository import person_path, person_repository


def is_own(name: str) -> bool:
    """Whether a `model.name` names a file of the user, not a network of the registry."""
    file, colon, factory = name.rpartition(":")
    return bool(colon) and file.endswith(".py") and factory.isidentifier()


def portable(name: str) -> str:
    """A `model.name` as files hold it, which may be handed over: no absolute path."""
    return Path(name).name if is_own(name) and Path(name).is_absolute() else name


def allowed_name(name: object, allowed: str | None) -> object:
    """The `model.name` to build where a data file says `name`.

    Raises UserError if that is a custom network other than `allowed`: building it runs its Python
    file, and a data file must not choose which code runs.
    """
    if not (isinstance(name, str) and is_own(name)):
        return name
    if allowed is not None and name in (allowed, portable(allowed)):
        return allowed
    shown = repr(name)[:300]
    raise UserError(
        f"building its network would run {shown}; if you trust that code, name it: --network"
        f" {shown} (network=)"
    )


def split(name: str) -> tuple[Path, str]:
    """The file and the factory of `path/to/file.py:factory`."""
    file, _, factory = name.rpartition(":")
    return person_path(file), factory


def must_exist(name: str) -> Path:
    """The file of `path/to/file.py:factory`. Raises UserError if it is missing."""
    file, _ = split(name)
    if not file.is_file():
        raise UserError(f"model.name: {file}: not found; give a path from the repository's root")
    return file


# A network is built many times in a process, and its code parsed once.
_parsed = lru_cache(maxsize=64)(ast.parse)


@lru_cache(maxsize=64)
def _imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def _imported(file: Path, tree: ast.Module, folder: Path) -> set[Path]:
    """The files of the modules and packages in `folder` that `file` imports anywhere."""
    names: set[tuple[str, ...]] = set()
    for node in _imports(tree):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        else:
            base = file.relative_to(folder).parts[: -node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names |= {base, *((*base, alias.name) for alias in node.names)}
    candidates = set()
    for parts in names:
        # Importing a.b.c also runs a/__init__.py and a/b/__init__.py.
        for end in range(1, len(parts) + 1):
            stem = folder.joinpath(*parts[:end])
            candidates |= {stem.with_name(f"{stem.name}.py"), stem / "__init__.py"}
    return {candidate for candidate in candidates if candidate.is_file()}


def watched(start: Path) -> dict[Path, bytes]:
    """The SHA-256 of the file, of what it imports from its own folder, and of the files that the
    code of these names, without running it.
    """
    found: dict[Path, bytes] = {}
    waiting, folder = [start], start.parent
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        code = file.read_bytes()
        found[file] = hashlib.sha256(code).digest()
        try:
            tree = _parsed(code)
        except (SyntaxError, ValueError):  # loading it reports the error with its line
            continue
        waiting += _imported(file, tree, folder)
        for other in named_files.named(tree, folder) - found.keys():
            try:
                with other.open("rb") as content:
                    found[other] = hashlib.file_digest(content, "sha256").digest()
            except OSError:  # opening it in the factory reports the error with its line
                continue
    return found


def fingerprint(name: str) -> str | None:
    """SHA-256 of everything that is `watched` for a network; None if its file is missing."""
    start, _ = split(name)
    if not start.is_file():
        return None
    entries = {os.path.relpath(file, start.parent): one for file, one in watched(start).items()}
    digest = hashlib.sha256()
    for key in sorted(entries):
        digest.update(key.encode(errors="surrogateescape") + b"\0" + entries[key])
    return digest.hexdigest()


# While a file is loaded and its factory called, what these open for reading; else None.
_opened: set[str] | None = None
_last_opened: set[str] = set()


@cache
def _listen() -> None:
    def hear(event: str, details: tuple) -> None:
        reads = event == "open" and not details[2] & (os.O_WRONLY | os.O_RDWR)
        if reads and _opened is not None and isinstance(details[0], (str, bytes)):
            _opened.add(os.fsdecode(details[0]))

    sys.addaudithook(hear)


@contextmanager
def _heard_safetensors() -> Iterator[None]:
    """Lets Python hear of the files that safetensors opens, in a library of its own."""
    opens = safetensors.safe_open

    def heard(filename: Any, *arguments: Any, **options: Any) -> Any:
        sys.audit("open", os.fspath(filename), None, os.O_RDONLY)
        return opens(filename, *arguments, **options)

    names = ("safetensors", "safetensors.torch", "safetensors.numpy")
    users = [sys.modules[name] for name in names if name in sys.modules]
    for module in users:
        module.safe_open = heard
    try:
        yield
    finally:
        for module in users:
            module.safe_open = opens


def unwatched(name: str) -> list[Path]:
    """The files below its folder that the network's code opened when its factory was last called,
    and whose names are not in it; relative to the folder.
    """
    start, _ = split(name)
    folder = start.resolve().parent
    known = {file.resolve() for file in watched(start)}
    opened = {Path(path).resolve() for path in _last_opened}
    return sorted(
        path.relative_to(folder)
        for path in opened - known
        if path.is_relative_to(folder)
        and path.suffix not in (".py", ".pyc")
        and not named_files.is_skipped(path, folder)
    )


def _blame(file: Path, error: BaseException) -> str:
    """The last line of the user's code in a traceback, and the error raised there."""
    if isinstance(error, SyntaxError) and error.filename:
        place = Path(error.filename)
        if place.is_relative_to(Path.cwd()):
            place = place.relative_to(Path.cwd())
        return f"{place}, line {error.lineno}: {error.msg}"
    lines = [
        f"{file}, line {frame.lineno}: "
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == file.resolve()
    ]
    text = str(error).splitlines()[0] if str(error) else "no message"
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = "; install it in this environment, or put it beside the file"
    return f"{lines[-1] if lines else f'{file}: '}{type(error).__name__}: {text}{hint}"


# The modules that were imported from each of the user's folders, by name.
_brought: dict[Path, set[str]] = {}


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Makes the modules in `folder` importable, and forgets those of other folders, which may have
    the same names.
    """
    for other in _brought.keys() - {folder}:
        for name in _brought.pop(other):
            sys.modules.pop(name, None)
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder):
                _brought.setdefault(folder, set()).add(name)


@contextmanager
def _listening() -> Iterator[None]:
    """Notes which files are opened meanwhile."""
    global _opened
    _listen()
    _opened = set()
    try:
        with _heard_safetensors():
            yield
    finally:
        _last_opened.clear()
        _last_opened.update(_opened)
        _opened = None


def _load(name: str) -> Any:
    file, factory = split(name)
    # Dataclasses look up their module by name, and files of two folders may have the same stem.
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"own_{file.stem}_{digest}", file.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        del sys.modules[spec.name]
        raise UserError(f"model.name: {_blame(file, error)}") from None
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
    """Calls the factory with those of the `offered` keyword arguments that it accepts. The file's
    folder is importable meanwhile. Raises UserError if file or factory is missing or raises.
    """
    file = must_exist(name)
    with _importable(file.resolve().parent), _listening():
        factory = _load(name)
        wanted: Mapping[str, Any] = {}
        try:
            takes = inspect.signature(factory).parameters
            everything = any(each.kind is each.VAR_KEYWORD for each in takes.values())
            wanted = {key: value for key, value in offered.items() if everything or key in takes}
            return factory(**wanted)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
            given = ", ".join(f"{key}={value}" for key, value in wanted.items())
            hint = ""
            if isinstance(error, FileNotFoundError) and person_repository() != Path():
                hint = (
                    "; this experiment runs in a copy of what Git tracks: track that file, or give"
                    " model.name an absolute path"
                )
            if "required" in str(error):
                hint = f"; a factory is given those of {', '.join(offered)} that it names"
            raise UserError(f"model.name: {name}({given}): {_blame(file, error)}{hint}") from None
