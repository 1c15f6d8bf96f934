"""What a program is made of, and that a change in it, and in nothing else, shows."""

from pathlib import Path

import pytest

from stages import probe_code
from stages.lib import modules, paths


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two programs; the first reads b by way of a, and both read c."""
    for name, text in {
        "first": "from stages.lib import a\nimport stages.lib.c as c\nimport json\n",
        "second": "from stages.lib.c import one\n",
        "lib/a": "from stages.lib import (\n    b,\n)\n",
        "lib/b": "def late():\n    from stages.lib import a\n",
        "lib/c": "one = 1\n",
        "lib/nobody": "",
    }.items():
        path = tmp_path / f"stages/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_program_is_made_of_what_it_imports_and_what_these_import(project):
    assert list(modules.fingerprint(project / "stages/first.py", project)) == [
        "stages/first.py", "stages/lib/a.py", "stages/lib/b.py", "stages/lib/c.py",
    ]  # fmt: skip
    assert list(modules.fingerprint(project / "stages/second.py", project)) == [
        "stages/second.py", "stages/lib/c.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "reached"),
    [
        ("lib/b", {"first"}),
        ("lib/c", {"first", "second"}),
        ("second", {"second"}),
        ("lib/nobody", set()),
    ],
)
def test_a_change_shows_where_it_is_read_and_nowhere_else(project, changed, reached):
    def found():
        probe_code.main(None)
        return {
            path.stem: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
            for path in Path(paths.CODE).iterdir()
        }

    before = found()
    assert found() == before
    path = project / f"stages/{changed}.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    after = found()
    assert {name for name in after if after[name] != before[name]} == reached


def test_a_stage_that_is_no_more_leaves_no_file(project):
    probe_code.main(None)
    (project / "stages/second.py").unlink()
    probe_code.main(None)
    assert [path.stem for path in paths.CODE.iterdir()] == ["first"]
