"""The commit that a report names."""

import subprocess

import pytest

from stages.lib.core import repository


@pytest.fixture
def committed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for name in ("params.yaml", "dvc.lock", "probe/dvc.lock", "reports/report.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "a")):
        subprocess.run(["git", *command], check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return tmp_path, done.stdout.strip()


def test_what_a_run_rewrites_is_no_change(committed):
    folder, commit = committed
    for name in ("dvc.lock", "probe/dvc.lock", "reports/report.md"):
        (folder / name).write_text("after")
    assert repository.commit()
    assert commit.startswith(repository.commit())
    (folder / "params.yaml").write_text("after")
    assert repository.commit().endswith(" and changes")


def test_outside_of_a_repository_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repository.commit() == ""
