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
    return tmp_path / "images"


def of(root, source="image_folder"):
    return fingerprint(SimpleNamespace(source=source, root=str(root)))


def replace_keeping_the_size(folder):
    path = folder / "ant/1.png"
    before = path.stat()
    path.write_bytes(b"5678")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def rewrite_at_the_same_time(folder):
    path = folder / "ant/1.png"
    before = path.stat()
    path.write_bytes(b"12345")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "a file added": lambda folder: (folder / "bee/4.png").touch(),
    "a file removed": lambda folder: (folder / "ant/1.png").unlink(),
    "a file renamed": lambda folder: (folder / "ant/1.png").rename(folder / "ant/0.png"),
    "a file moved to another class": lambda folder: (folder / "ant/1.png").rename(
        folder / "bee/1.png"
    ),
    "a folder renamed": lambda folder: (folder / "ant").rename(folder / "cat"),
    "an empty class added": lambda folder: (folder / "dog").mkdir(),
    "another time": replace_keeping_the_size,
    "another size": rewrite_at_the_same_time,
    "a link back": lambda folder: (folder / "bee/up").symlink_to(folder),
    "a link to nowhere": lambda folder: (folder / "bee/x").symlink_to("nowhere"),
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
    assert before["files"] == 3
    (folder / "ant/.DS_Store").touch()
    (folder / "Thumbs.db").touch()
    assert of(folder) == before


def test_what_a_link_leads_to_counts(folder, tmp_path):
    (tmp_path / "target").write_bytes(b"1")
    (folder / "ant/link.png").symlink_to(tmp_path / "target")
    before = of(folder)
    (tmp_path / "target").write_bytes(b"12")
    assert of(folder) != before


@pytest.mark.parametrize("name", ["nothing", "file", "itself", "x" * 5000])
def test_a_folder_that_is_not_there_is_no_error(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "itself").symlink_to("itself")
    found = of(tmp_path / name)
    assert (found["files"], found["sha256"]) == (None, None)


def test_other_sources_are_their_name_and_root_and_any_name_is_counted(folder):
    assert of("somewhere", "digits") == {"source": "digits", "root": "somewhere"}
    (folder / "ant" / os.fsdecode(b"caf\xe9\n")).touch()
    assert of(folder)["files"] == 4


def test_walking_is_sorted_by_name(folder):
    found = [path for path, _ in listing.walk(folder, on_trouble=pytest.fail)]
    assert found == [
        "ant/", "bee/", "ant/1.png", "ant/2.png", "bee/inside/", "bee/inside/3.png",
    ]  # fmt: skip


def test_home_is_understood(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert listing.folder("~/images") == Path("/home/somebody/images")


def test_a_network_of_the_catalogue_without_weights_needs_no_file():
    model = SimpleNamespace(name="convnet", weights="none")
    assert of_network(model) == {"code": None, "weights": None}


@pytest.mark.parametrize(
    ("name", "weights", "missing"),
    [("nets/mine.py:build", "none", "nets/mine.py"), ("convnet", "w.pt", "w.pt")],
)
def test_a_missing_network_or_weights_is_said_before_any_work(
    tmp_path, monkeypatch, name, weights, missing
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{missing}: not found"):
        of_network(SimpleNamespace(name=name, weights=weights))
    for file in (Path("nets/mine.py"), Path("w.pt")):
        file.parent.mkdir(exist_ok=True)
        file.write_text("x = 1\n")
    first = of_network(SimpleNamespace(name=name, weights=weights))
    Path(missing).write_text("x = 2\n")
    assert of_network(SimpleNamespace(name=name, weights=weights)) != first


@pytest.mark.parametrize(("name", "weights"), [("mine.py:build", "none"), ("convnet", "w.pt")])
def test_in_the_copy_of_an_experiment_an_absolute_path_is_advised(
    tmp_path, monkeypatch, name, weights
):
    copy = tmp_path / ".dvc/tmp/exps/tmp123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(UserError, match="copies what Git tracks: give an absolute path"):
        of_network(SimpleNamespace(name=name, weights=weights))
    with pytest.raises(UserError, match="copies what Git tracks: give an absolute path"):
        image_folder.list_images(Path("photos"))


def test_no_heavy_library_is_imported():
    program = (
        "import sys, stages.probe;"
        "sys.exit(bool({'numpy', 'torch', 'PIL', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
