"""Finds the files that params.yaml names, also in the copies that DVC makes for experiments; and
the commit of this code.
"""

import os
import subprocess
from pathlib import Path

from stages.lib.core import paths
from stages.lib.core.errors import UserError

# `dvc exp run` with --queue or --temp copies what Git tracks into a folder below this one.
COPIES = ".dvc/tmp/exps"


def person_repository() -> Path:
    """The person's own repository: the present folder, unless that is a copy for an experiment."""
    own, copied, _ = Path.cwd().as_posix().partition(f"/{COPIES}/")
    return Path(own) if copied else Path()


def person_path(text: str | Path) -> Path:
    """A path of params.yaml; `~` is the home directory. In a copy of the repository, a relative
    path that is not there is taken from the person's own repository.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such home directory") from None
    # Path.exists raises where a name is too long.
    return path if os.path.exists(path) else person_repository() / path  # noqa: PTH110


def commit() -> str:
    """The commit of this code, marked if code or params differ from it; empty outside of a
    repository. What a run itself rewrites is no change.
    """
    described = ["git", "describe", "--always", "--exclude=*"]
    results = (f":!{path}" for path in (*paths.LOCKS, paths.REPORTS))
    compared = ["git", "diff", "--quiet", "HEAD", "--", ".", *results]
    try:
        done = subprocess.run(described, capture_output=True, text=True)
        name = done.stdout.strip()
        changed = name and subprocess.run(compared, capture_output=True).returncode
    except FileNotFoundError:
        return ""
    return f"{name} and changes" if changed else name
