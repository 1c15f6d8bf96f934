"""What tells that images changed: seen in any change of the files, without opening one."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.lib.core.errors import UserError
from stages.lib.data import image_folder, listing
from stages.lib.data.fingerprint import of_images as fingerprint
from stages.lib.data.fingerprint import of_network

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    for name in ("ant/1.png", "ant/2.png", "bee/inside/3.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")
    (tmp_path / "target").write_bytes(b"1")
    (tmp_path / "images/ant/link.png").symlink_to(tmp_path / "target")
    return tmp_path / "images"


def of(root, source="image_folder"):
    return fingerprint(SimpleNamespace(source=source, root=str(root)))


def rewrite(folder, content, later):
    path = folder / "ant/1.png"
    time = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(time, time + later))


CHANGES = {
    "a file added": lambda folder: (folder / "bee/4.png").touch(),
    "a file removed": lambda folder: (folder / "ant/1.png").unlink(),
    "a file renamed": lambda folder: (folder / "ant/1.png").rename(folder / "ant/0.png"),
    "a file in another class": lambda folder: (folder / "ant/1.png").rename(folder / "bee/1.png"),
    "a folder renamed": lambda folder: (folder / "ant").rename(folder / "cat"),
    "an empty class added": lambda folder: (folder / "dog").mkdir(),
    "another time": lambda folder: rewrite(folder, b"5678", 1),
    "another size": lambda folder: rewrite(folder, b"12345", 0),
    "a link back": lambda folder: (folder / "bee/up").symlink_to(folder),
    "a link to nowhere": lambda folder: (folder / "bee/x").symlink_to("nowhere"),
    "the target of a link": lambda folder: (folder.parent / "target").write_bytes(b"12"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(folder, change):
    before = of(folder)
    assert of(folder) == before
    CHANGES[change](folder)
    assert of(folder)["sha256"] != before["sha256"]


def test_files_are_counted_and_hidden_ones_are_no_change(folder):
    before = of(folder)
    assert set(before) == {"source", "root", "files", "sha256"}
    assert before["files"] == 4
    (folder / "ant/.DS_Store").touch()
    (folder / "Thumbs.db").touch()
    assert of(folder) == before
    (folder / "ant" / os.fsdecode(b"caf\xe9\n")).touch()
    assert of(folder)["files"] == 5
    assert of("somewhere", "digits") == {"source": "digits", "root": "somewhere"}


@pytest.mark.parametrize("name", ["nothing", "file", "itself", "x" * 5000])
def test_a_folder_that_is_not_there_is_no_error(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "itself").symlink_to("itself")
    found = of(tmp_path / name)
    assert (found["files"], found["sha256"]) == (None, None)


def test_walking_is_sorted_by_name_and_home_is_understood(folder, monkeypatch):
    found = [path for path, _ in listing.walk(folder, on_trouble=pytest.fail)]
    inside = ["ant/1.png", "ant/2.png", "ant/link.png", "bee/inside/", "bee/inside/3.png"]
    assert found == ["ant/", "bee/", *inside]
    monkeypatch.setenv("HOME", "/home/somebody")
    assert listing.folder("~/images") == Path("/home/somebody/images")


@pytest.mark.parametrize(
    ("name", "weights", "missing"),
    [("nets/mine.py:build", "none", "nets/mine.py"), ("convnet", "w.pt", "w.pt")],
)
@pytest.mark.parametrize("place", ["", ".dvc/tmp/exps/tmp123"])
def test_a_missing_network_or_weights_is_said_before_any_work(
    tmp_path, monkeypatch, name, weights, missing, place
):
    (tmp_path / place / "nets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / place)
    model = SimpleNamespace(name=name, weights=weights)
    with pytest.raises(UserError, match=f"{missing}: not found") as error:
        of_network(model)
    with pytest.raises(UserError) as no_folder:
        image_folder.list_images(Path("photos"))
    # DVC makes the copy of an experiment there.
    for each in (error, no_folder):
        advised = "copies what Git tracks: give an absolute path" in str(each.value)
        assert advised is bool(place)
    fingerprints = [of_network(SimpleNamespace(name="convnet", weights="none"))]
    assert fingerprints == [{"code": None, "weights": None}]
    for text in ("x = 1\n", "x = 2\n"):
        Path(missing).write_text(text)
        assert of_network(model) not in fingerprints
        fingerprints.append(of_network(model))


def test_no_heavy_library_is_imported():
    program = (
        "import sys, stages.probe;"
        "sys.exit(bool({'numpy', 'torch', 'PIL', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
