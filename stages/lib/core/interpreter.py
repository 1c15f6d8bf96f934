"""Which Python runs the stages: that of the dvc command, also where its environment is not active.
Imports only the standard library, so that it works in any Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# A shell, and what started it, may stand between DVC and a stage.
_MOST_PARENTS = 3


def _parent(pid: int) -> tuple[int, list[str]]:
    """The parent's id and the command of a process."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape")
        # The name in parentheses may hold anything.
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        return int(status.split()[1]), command.split("\0")
    except FileNotFoundError:
        done = subprocess.run(
            ["ps", "-o", "ppid=,command=", "-p", str(pid)], capture_output=True, text=True
        )
        parent, *command = done.stdout.split() or ["0"]
        return int(parent), command


def dvc_command() -> list[str]:
    """The command line of the dvc command that started this process, without what is not its own:
    Python, `dvc`, arguments. Empty without one.
    """
    pid = os.getppid()
    try:
        for _ in range(_MOST_PARENTS):
            pid, command = _parent(pid)
            names = [Path(word).name for word in command[1:3]]
            if "dvc" in names and os.path.isabs(command[0]):  # noqa: PTH117
                return [command[0], *filter(None, command[1 + names.index("dvc") :])]
            if pid <= 1:
                break
    except (OSError, ValueError, IndexError):
        pass
    return []


def runs_everything() -> bool:
    """Whether this process is a part of a `dvc repro` that makes the whole pipeline here, and takes
    nothing from other machines as `--pull` does.
    """
    command = dvc_command()[2:]
    return command[:1] == ["repro"] and {*command[1:]} <= {"-q", "--quiet", "-v", "--verbose"}


def use_that_of_dvc() -> None:
    """Starts `python -m …` anew with DVC's Python if it runs in another environment. Does not
    return then.
    """
    if os.name != "posix" or getattr(sys, "orig_argv", [])[1:2] != ["-m"]:
        return
    command = dvc_command()
    wanted = Path(command[0]) if command else None
    try:
        # An environment's Python is a link: its folder tells it, not what it leads to.
        if wanted is None or wanted.parent.samefile(Path(sys.executable).parent):
            return
        # DVC may be installed alone, for all environments.
        if not any(wanted.parent.parent.glob("lib*/python*/site-packages/torch")):
            return
        os.execv(wanted, [str(wanted), *sys.orig_argv[1:]])
    except OSError:
        return
