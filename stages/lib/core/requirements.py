"""Compares the installed packages with requirements.txt. Other versions may give other results."""

from importlib import metadata
from pathlib import Path

from stages.lib.core import paths


def _difference(name: str, wanted: str) -> str:
    try:
        # 2.15.0+cpu is a build of 2.15.0.
        version = metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return "" if version == wanted else f"{name} {version} is installed"


def note(file: Path = paths.REQUIREMENTS) -> str:
    """A line about packages that are missing or have another version; empty if there are none."""
    pins = [line.split("==") for line in file.read_text(encoding="utf-8").split() if "==" in line]
    found = [(_difference(name, wanted), wanted) for name, wanted in pins]
    others = [(text, wanted) for text, wanted in found if text]
    if not others:
        return ""
    text, wanted = others[0]
    more = f" ({len(others) - 1} more packages differ)" if len(others) > 1 else ""
    return f"{text}, {file} asks for {wanted}{more}; results may differ"
