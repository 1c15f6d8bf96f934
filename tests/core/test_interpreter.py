"""Stages run with DVC's Python, also where another one comes first on the PATH."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.lib.core import interpreter
from tests.conftest import ROOT

# As the dvc command does it: a shell that looks for `python` on the PATH.
DVC = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1], shell=True).returncode)\n"
MODULE = "import stages, sys\nprint(sys.prefix, *sys.argv[1:])\n"


def environment(folder):
    """A virtual environment, made in no time, with the packages of this one."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(Path(sys.executable).resolve())
    home = Path(sys.executable).resolve().parent
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    (folder / "bin/dvc").write_text(DVC)
    (folder / "lib/python3.11/site-packages/torch").mkdir(parents=True)
    return folder


def run(command, tmp_path, path):
    packages = os.pathsep.join(filter(None, [str(ROOT), str(tmp_path), *sys.path]))
    variables = {**os.environ, "PATH": f"{path}:/usr/bin:/bin", "PYTHONPATH": packages}
    return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)


@pytest.mark.skipif(os.name != "posix", reason="only there a process can be replaced")
@pytest.mark.parametrize("command", ["python -m shown a --b", "true; python -m shown a --b; true"])
def test_a_stage_runs_with_the_python_of_dvc(tmp_path, command):
    own, other = environment(tmp_path / "own"), environment(tmp_path / "other")
    (tmp_path / "shown.py").write_text(MODULE)
    for place, expected in ((own, own), (other, other)):
        started = run([place / "bin/python", place / "bin/dvc", command], tmp_path, other / "bin")
        assert started.stdout == f"{expected} a --b\n", started.stderr
    # A DVC that is installed without the packages of the stages leaves them to the environment.
    (own / "lib/python3.11/site-packages/torch").rmdir()
    started = run([own / "bin/python", own / "bin/dvc", command], tmp_path, other / "bin")
    assert started.stdout == f"{other} a --b\n", started.stderr
    # Without DVC, the one that was asked for runs.
    alone = run([other / "bin/python", "-m", "shown"], tmp_path, own / "bin")
    assert alone.stdout.strip() == str(other)


@pytest.mark.parametrize(
    ("command", "everything"),
    [
        ("repro", True), ("repro -q", True), ("repro --verbose", True), ("repro --pull", False),
        ("repro finetune@0", False), ("repro -s report", False), ("exp run", False), ("", False),
    ],
)  # fmt: skip
def test_a_plain_repro_is_one_of_everything(monkeypatch, command, everything):
    words = ["/bin/python", "dvc", *command.split()] if command else []
    monkeypatch.setattr(interpreter, "dvc_command", lambda: words)
    assert interpreter.runs_everything() == everything
