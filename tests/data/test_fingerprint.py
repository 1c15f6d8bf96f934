"""What tells that images changed: seen in any change of the files, without opening one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.lib.core import repository
from stages.lib.core.errors import UserError
from stages.lib.data import content, listing
from stages.lib.data.fingerprint import of_images as fingerprint
from stages.lib.data.fingerprint import of_network

ROOT = Path(__file__).resolve().parents[2]
PREPARED = Path("data/prepared")
DATA = SimpleNamespace(color="auto", image_size="auto")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ant/1.png", "ant/2.png", "bee/inside/3.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name[-5]}234".encode())
        os.utime(path, (1e9, 1e9))
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


def swap(folder):
    """As `mv` does it: sizes and times go with the contents."""
    first, second = folder / "ant/1.png", folder / "bee/inside/3.png"
    first.rename(folder.parent / "aside")
    second.rename(first)
    (folder.parent / "aside").rename(second)


CHANGES = {
    "a file added": lambda folder: (folder / "bee/4.png").touch(),
    "a file removed": lambda folder: (folder / "ant/1.png").unlink(),
    "a file renamed": lambda folder: (folder / "ant/1.png").rename(folder / "ant/0.png"),
    "a file in another class": lambda folder: (folder / "ant/1.png").rename(folder / "bee/1.png"),
    "a folder renamed": lambda folder: (folder / "ant").rename(folder / "cat"),
    "an empty class added": lambda folder: (folder / "dog").mkdir(),
    "another content of the same size and time": lambda folder: rewrite(folder, b"5678", 0),
    "another size": lambda folder: rewrite(folder, b"12345", 0),
    "two files swapped": swap,
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


def test_only_what_is_new_is_read_again_and_a_copy_is_the_same(folder, monkeypatch):
    before = of(folder)
    read = []
    hashed = content._hash
    monkeypatch.setattr(content, "_hash", lambda path: read.append(path) or hashed(path))
    monkeypatch.setattr(content, "_TICK_NS", -(10**10))
    of(folder)
    assert len(read) == 4  # what was written this second is not trusted
    assert of(folder) == before
    assert len(read) == 4
    (folder / "ant/2.png").touch()
    assert of(folder) == before
    assert read[4:] == [f"{folder}/ant/2.png"]
    shutil.copytree(folder, folder.parent / "clone")
    assert of(folder.parent / "clone") == before | {"root": str(folder.parent / "clone")}
    for file in Path(".dvc/tmp/content").iterdir():
        file.write_text("torn")
    assert of(folder) == before


def test_of_a_table_its_own_files_are_watched_and_no_others(folder):
    table = folder / "labels.csv"
    table.write_text("file,label\nant/1.png,ant\nbee/inside/3.png,bee\n")
    before = of(table)
    assert before["files"] == 3
    rewrite(folder, b"5678", 0)
    changed = of(table)
    assert changed != before
    (folder / "ant/2.png").unlink()
    assert of(table) == changed
    table.write_text("file,label\nant/1.png,bee\nbee/inside/3.png,ant\n")
    assert of(table) != changed
    (folder / "ant/1.png").unlink()
    assert of(table)["sha256"] is None


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
    assert repository.person_path("~/images") == Path("/home/somebody/images")


@pytest.mark.parametrize(
    ("name", "weights", "missing"),
    [("nets/mine.py:build", "none", "nets/mine.py"), ("convnet", "w.bin", "w.bin")],
)
@pytest.mark.parametrize("place", ["", ".dvc/tmp/exps/tmp123"])
def test_a_missing_network_or_weights_is_said_before_any_work(
    tmp_path, monkeypatch, name, weights, missing, place
):
    (tmp_path / place / "nets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / place)
    model = SimpleNamespace(name=name, weights=weights, class_index="none")
    with pytest.raises(UserError, match=f"{missing}: not found") as error:
        of_network("model", model, DATA, PREPARED)
    # DVC makes the copy of an experiment there, of what Git tracks; the rest is the person's own.
    assert (f"{tmp_path}/{missing}" in str(error.value)) is bool(place)
    nothing = SimpleNamespace(name="convnet", weights="none", class_index="none")
    fingerprints = [of_network("model", nothing, DATA, PREPARED)]
    assert fingerprints == [{"code": None, "weights": None, "class_index": None}]
    for text in ("x = 1\n", "x = 2\n"):
        (tmp_path / missing).parent.mkdir(exist_ok=True)
        (tmp_path / missing).write_text(text)
        assert of_network("model", model, DATA, PREPARED) not in fingerprints
        fingerprints.append(of_network("model", model, DATA, PREPARED))


COMPUTED = """
from pathlib import Path
HERE = Path(__file__).parent
(HERE.parent / ("cal" + "ls")).open("a").write("x")
def make(num_classes, in_channels, image_size):
    open(HERE / ("con" + "figs") / "".join(["of_", str(num_classes), chr(46), "cfg"]))
"""


def test_files_whose_names_the_network_computes_are_watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets/configs").mkdir(parents=True)
    (tmp_path / "nets/mine.py").write_text(COMPUTED)
    calls, config = tmp_path / "calls", tmp_path / "nets/configs/of_10.cfg"
    model = SimpleNamespace(name="nets/mine.py:make", weights="none", class_index="none")
    # Before its file is there, the network cannot be built; train_baseline will say so.
    assert of_network("model", model, DATA, PREPARED)["opened"] == {}
    found = []
    for text in ("1", "1", "2"):
        config.write_text(text)
        found.append(of_network("model", model, DATA, PREPARED)["opened"])
    assert found[0].keys() == {"configs/of_10.cfg"}
    assert found[0] == found[1] != found[2]
    # It is built once for each version of its code and each shape of the data.
    assert calls.read_text() == "xx"
    (tmp_path / "data/prepared").mkdir(parents=True)
    meta = {"classes": ["a", "b"], "image_shape": [3, 8, 8]}
    (tmp_path / "data/prepared/meta.json").write_text(json.dumps(meta))
    (tmp_path / "nets/configs/of_2.cfg").write_text("1")
    assert of_network("model", model, DATA, PREPARED)["opened"].keys() == {"configs/of_2.cfg"}
    assert calls.read_text() == "xxx"


def test_no_heavy_library_is_imported():
    program = (
        "import sys, stages.probe;"
        "sys.exit(bool({'numpy', 'torch', 'PIL', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
