"""A person's folder of images: two layouts, every mistake in them a line that says what to do."""

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ALWAYS, TINY, Repository
from PIL import Image

from stages.lib.core import hardware, prepared
from stages.lib.core.errors import UserError
from stages.lib.data import image_folder, sources, splits, staging

LEVELS = {"ant": 40, "bee": 120, "cow": 200}


def fill(folder, level, count, *, size=(12, 10), start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("L", size, level + number % 20).save(folder / f"{number:03}.png")


@pytest.fixture
def root(tmp_path):
    """Three classes, whose grey level tells which one an image is of."""
    for name, level in LEVELS.items():
        fill(tmp_path / "images" / name, level, 12)
    return tmp_path / "images"


@pytest.fixture
def layered(tmp_path):
    for name, level in LEVELS.items():
        fill(tmp_path / "layered/train" / name, level, 10)
        fill(tmp_path / "layered/test" / name, level, 4)
    return tmp_path / "layered"


def wanted(root, **changes):
    data = {
        "source": "image_folder", "root": str(root), "image_size": 8, "color": "grey",
        "max_unreadable": 0, "validation_images": 6, "test_images": 9, "split_seed": 0,
    }  # fmt: skip
    return SimpleNamespace(**(data | changes))


def read(root, **changes):
    return sources.read(wanted(root, **changes), root.parent / "staged")


def refusal(root, **changes):
    with pytest.raises(UserError) as error:
        read(root, **changes)
    first, *more = str(error.value).splitlines()
    assert first.startswith("data.")
    assert all(line.startswith("  ") for line in more)
    return str(error.value)


def test_every_image_has_the_label_of_its_folder(root):
    found = read(root)
    assert found.images.shape == (36, 1, 8, 8)
    assert found.classes == ["ant", "bee", "cow"]
    assert image_folder.list_images(root).files == [
        f"{name}/{number:03}.png" for name in LEVELS for number in range(12)
    ]
    assert (found.labels.dtype, found.own_test) == (np.int64, 0)
    levels = found.images[:].mean(axis=(1, 2, 3))
    assert [list(LEVELS.values())[label] for label in found.labels] == pytest.approx(
        levels - np.tile(np.arange(12), 3)
    )


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
def test_a_test_folder_is_the_whole_of_the_test_part(layered, train, test):
    (layered / "train").rename(layered / train)
    (layered / "test").rename(layered / test)
    found = read(layered)
    assert (len(found.labels), found.own_test) == (42, 12)
    parts = splits.parts(found.labels, found.own_test, wanted(layered), found.classes)
    assert [len(parts[name]) for name in prepared.PARTS] == [24, 6, 12]
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(42))
    files = image_folder.list_images(layered).files
    assert all(files[index].startswith(f"{test}/") for index in parts["test"])
    assert np.bincount(found.labels[parts["validation"]]).tolist() == [2, 2, 2]


def test_mixed_sizes_modes_and_formats_become_equal_rows(root):
    Image.new("RGBA", (30, 50), (0, 0, 0, 0)).save(root / "ant/a.webp")
    Image.new("CMYK", (9, 80), 0).save(root / "ant/b.jpg")
    Image.new("1", (8, 8), 1).save(root / "ant/c.bmp")
    Image.new("P", (300, 5), 0).save(root / "ant/d.gif")
    found = read(root, color="rgb")
    assert found.images.shape == (40, 3, 8, 8)
    assert (found.images[12:15] == 255).all()


def test_threads_and_blocks_do_not_change_a_byte(root, monkeypatch):
    (root / "bee/broken.png").write_bytes(b"x")
    one = read(root, max_unreadable=1).images.path.read_bytes()
    monkeypatch.setattr(hardware, "cores", lambda: 7)
    monkeypatch.setattr("stages.lib.data.staging._BLOCK_BYTES", 5 * 64)
    assert read(root, max_unreadable=1).images.path.read_bytes() == one


def test_folders_inside_a_class_and_links_are_followed(root, tmp_path):
    fill(root / "ant/more/and more", 40, 2)
    fill(tmp_path / "elsewhere", 40, 3)
    (root / "ant/linked").symlink_to(tmp_path / "elsewhere")
    (root / "bee/link.png").symlink_to(tmp_path / "elsewhere/000.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    assert np.bincount(read(root).labels).tolist() == [17, 13, 12, 3]


def test_clutter_is_not_seen(root):
    for name in (".DS_Store", "ant/.DS_Store", "ant/Thumbs.db", "ant/desktop.ini", "ant/._000.png"):
        (root / name).write_bytes(b"x")
    for name in (".git", "__MACOSX", "ant/.thumbnails"):
        (root / name).mkdir()
    assert len(read(root).labels) == 36


@pytest.mark.parametrize(
    "name", [b"caf\xe9.png", "ümläut é.png".encode(), b"two\nlines.png", b"a b .png", b"-r.png"]
)
def test_any_name_will_do(root, name):
    content = (root / "ant/000.png").read_bytes()
    for place in ("ant", os.fsdecode(name)):
        (root / place).mkdir(exist_ok=True)
        for number in range(3):
            (root / place / f"{number}{os.fsdecode(name)}").write_bytes(content)
    found = read(root)
    assert len(found.labels) == 42
    json.dumps(found.classes, ensure_ascii=False).encode()
    assert all(label.isprintable() for label in found.classes)


def test_odd_names_are_printable_in_the_error(root):
    (root / "ant" / os.fsdecode(b"caf\xe9\n.png")).write_bytes(b"x")
    assert r"ant/caf\xe9\n.png: not an image" in refusal(root)


def test_unreadable_files_are_listed_with_their_reasons(root):
    (root / "ant/empty.png").touch()
    (root / "bee/notes.txt").write_text("hello")
    whole = (root / "cow/000.png").read_bytes()
    (root / "cow/torn.png").write_bytes(whole[: len(whole) // 2])
    message = refusal(root, max_unreadable=2)
    assert "3 of 39 files" in message
    assert "raise data.max_unreadable (now 2)" in message
    assert "  ant/empty.png: an empty file" in message
    assert "  bee/notes.txt: not an image" in message
    assert re.search(r"  cow/torn\.png: \w+", message)


def test_a_long_list_of_unreadable_files_ends_in_their_number(root):
    for number in range(25):
        (root / f"ant/x{number:02}").touch()
    lines = refusal(root, max_unreadable=24).splitlines()
    assert "25 of 61 files" in lines[0]
    assert (len(lines), lines[-1]) == (22, "  and 5 more")


def test_what_is_allowed_to_be_unreadable_is_left_out_and_told(root):
    (root / "bee/005.png").write_bytes(b"x")
    found = read(root, max_unreadable=1)
    assert np.bincount(found.labels).tolist() == [12, 11, 12]
    assert len(found.images) == 35
    assert [entry["file"] for entry in found.unreadable] == ["bee/005.png"]
    assert "1 of 36 files left out, as they cannot be read" in found.notes[0]
    assert "bee/005.png: not an image" in found.notes[1]


def test_unreadable_test_images_shrink_the_test_part(layered):
    (layered / "test/bee/000.png").write_bytes(b"x")
    found = read(layered, max_unreadable=1)
    assert (len(found.labels), found.own_test) == (41, 11)


@pytest.mark.parametrize("part", ["", "train/", "test/"])
def test_a_class_of_unreadable_files_alone_is_refused(root, layered, part):
    place = layered if part else root
    for path in (place / part / "bee").iterdir():
        path.write_bytes(b"x")
    message = refusal(place, max_unreadable=99, validation_images=3, test_images=3)
    assert f"none of the files in {place}/{part}bee can be read" in message


def test_files_beside_the_classes_are_a_note(root):
    (root / "labels.csv").touch()
    (root / "loose.png").touch()
    found = read(root)
    assert found.notes == (
        "data.root: files beside the class folders are not read: labels.csv, loose.png",
    )


def make(folder, *places):
    for place in places:
        fill(folder / place, 40, 3)


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    message = refusal(tmp_path / "nothing")
    assert f"put the images in {tmp_path}/nothing/CLASS/" in message
    (tmp_path / "x").touch()
    assert "is a file" in refusal(tmp_path / "x")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([], "no class folders; allowed: at least two"),
        (["ant"], "a single class folder (ant)"),
        (["train", "test"], "images/train has no class folders"),
        (["train/ant", "test/ant"], "a single class folder (ant)"),
        (["train/ant", "train/bee"], "has train/ with folders inside, but no test/"),
        (["test/ant", "test/bee"], "has test/ with folders inside, but no train/"),
        (["train/ant", "train/bee", "val/ant"], "but no test/"),
        (["train/ant", "train/bee", "test/ant"], "images/test has a single class folder (ant)"),
        (
            ["train/ant", "train/bee", "test/ant", "test/bee", "test/cow"],
            "only one of train/ and test/: cow",
        ),
        (
            ["train/ant", "train/bee", "test/ant", "test/bee", "val/ant"],
            "also val; move that elsewhere",
        ),
        (["ant", "Ant", "bee"], "Ant and ant are the same class"),
        (["caf\u00e9", "cafe\u0301", "bee"], "are the same class"),
        (
            ["train/ant", "train/bee", "test/Ant", "test/bee"],
            "train/ant and test/Ant are the same class",
        ),
    ],
)
def test_other_layouts_are_refused_with_what_is_wrong(tmp_path, places, words):
    folder = tmp_path / "images"
    folder.mkdir()
    make(folder, *places)
    assert words in refusal(folder)


def test_a_class_may_be_called_train(tmp_path):
    make(tmp_path / "images", "bus", "car", "train")
    found = read(tmp_path / "images", validation_images=3, test_images=3)
    assert found.classes == ["bus", "car", "train"]


@pytest.mark.parametrize("part", ["", "train", "test"])
def test_an_empty_class_is_named(root, layered, part):
    place = layered if part else root
    if part:
        fill(layered / {"train": "test", "test": "train"}[part] / "dog", 9, 3)
    (place / part / "dog/empty inside").mkdir(parents=True)
    assert f"without a file: {part + '/' * bool(part)}dog;" in refusal(place)


@pytest.mark.parametrize(("link", "target"), [("ant/deeper/back", "ant"), ("ant/up", ".")])
def test_a_link_back_to_a_folder_above_is_an_error(root, link, target):
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / target)
    message = refusal(root)
    assert f"{root}/{link}" in message
    assert "a link that leads back" in message


@pytest.mark.parametrize("target", ["dog", "nothing"])
def test_a_class_folder_that_is_a_link_to_nowhere_is_an_error(root, target):
    (root / "dog").symlink_to(root / target)
    assert f"{root}/dog is a link that leads nowhere" in refusal(root)


def test_images_of_one_size_keep_it(root):
    assert read(root, image_size="auto", color="auto").images.shape == (36, 3, 10, 12)


@pytest.mark.parametrize(
    ("file", "size", "words"),
    [
        ("cow/other.png", (13, 10), "has 13×10 pixels, the first 12×10; set data.image_size to a"),
        ("ant/000.png", (12, 7), "has 12×7 pixels; allowed: at least 8 a side"),
    ],
)
def test_images_of_mixed_sizes_or_too_small_need_a_size(root, file, size, words):
    Image.new("L", size).save(root / file)
    assert f"{file} {words}" in refusal(root, image_size="auto")


def test_a_block_of_unreadable_files_alone_is_left_out(root, monkeypatch):
    monkeypatch.setattr("stages.lib.data.staging._BLOCK_BYTES", 4 * 64)
    for number in range(4, 8):
        (root / f"ant/{number:03}.png").write_bytes(b"x")
    assert len(read(root, max_unreadable=4).images) == 32


def test_a_set_of_unreadable_files_alone_is_refused(root):
    for path in root.glob("*/*"):
        path.write_bytes(b"x")
    assert "36 of 36 files" in refusal(root, image_size="auto")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validation_images": 100}, "9 + 100 of 36 images leave 0 for training"),
        ({"validation_images": 2}, "2 is fewer than the 3 classes"),
        ({"test_images": 2}, "2 is fewer than the 3 classes"),
    ],
)
def test_parts_larger_than_the_set_are_refused_before_decoding(root, monkeypatch, changes, words):
    monkeypatch.setattr("stages.lib.data.staging.decode", None)
    assert words in refusal(root, **changes)


def test_more_validation_images_than_training_ones_are_refused(layered):
    words = "data.validation_images: 29 of 30 images leave 1"
    assert words in refusal(layered, validation_images=29)


@pytest.mark.parametrize(
    ("layout", "places", "count"),
    [("root", ["dog"], 1), ("root", ["dog"], 2), ("layered", ["train/dog", "test/dog"], 1)],
)
def test_a_class_of_too_few_images_is_named(request, layout, places, count):
    folder = request.getfixturevalue(layout)
    for place in places:
        fill(folder / place, 9, count)
    assert f"class dog has {count} image" in refusal(folder)


def test_row_files_are_indexed_like_arrays(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (30, 3, 4, 5), dtype=np.uint8)
    array.tofile(tmp_path / "rows")
    found = staging.RowFile(tmp_path / "rows", array.shape[1:], np.arange(30))
    for wanted_rows in (slice(None), slice(4, 9), slice(9, 9)):
        assert np.array_equal(found[wanted_rows], array[wanted_rows])
    index = np.array([0, 1, 2, 7, 8, 29])
    chosen = found.take(index[::2]).take(np.array([1, 2]))
    assert (chosen.shape, len(chosen)) == ((2, 3, 4, 5), 2)
    assert np.array_equal(chosen[:], array[[2, 8]])


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    copy = Repository(tmp_path_factory.mktemp("repository"), TINY)
    for name, level in LEVELS.items():
        fill(copy.path / "data/raw" / name, level, 12)
    for key, value in vars(wanted("data/raw")).items():
        copy.change(f"data.{key}", value)
    return copy


def test_the_stage_leaves_what_later_stages_load(repository):
    broken = repository.path / "data/raw/ant/broken.png"
    broken.write_bytes(b"x")
    repository.change("data.max_unreadable", 1)
    done = repository.stage("prepare_data")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "note: data.root: 1 of 37 files left out, as they cannot be read:",
        "note:   ant/broken.png: not an image, or in a format that Pillow does not read",
    ]
    folder = repository.path / "data/prepared"
    found, meta = prepared.load(folder), prepared.read_meta(folder)
    assert [len(part.labels) for part in found[:3]] == [21, 6, 9]
    for part in found[:3]:
        level = part.images.mean(axis=(1, 2, 3))
        assert np.array_equal(part.labels, np.digitize(level, [100, 180]))
    assert (meta["source"], meta["unreadable_count"]) == ("image_folder", 1)
    assert meta["unreadable"][0]["file"] == "ant/broken.png"
    assert not (folder / "images.staged").exists()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert repository.stage("prepare_data").returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    repository.change("data.max_unreadable", 0)
    done = repository.stage("prepare_data")
    assert done.returncode == 2
    assert "broken.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.glob(".*")] == [".gitignore"]
    broken.unlink()


@pytest.mark.parametrize("stage", ["probe", "prepare_data"])
@pytest.mark.parametrize(
    "place", ["data/prepared", "data/prepared/mine", "data/../data/prepared", "data", "."]
)
def test_images_where_results_are_written_are_refused(repository, stage, place):
    repository.change("data.root", place)
    try:
        done = repository.stage(stage)
    finally:
        repository.change("data.root", "data/raw")
    assert done.returncode == 2
    assert "put the images " in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_probe_writes_changes_only_with_the_images(repository):
    file = repository.path / "artifacts/inputs/data.json"
    assert repository.stage("probe").returncode == 0
    first = file.read_bytes()
    assert json.loads(first)["files"] == 36
    assert repository.stage("probe").returncode == 0
    assert file.read_bytes() == first
    fill(repository.path / "data/raw/bee", 120, 1, start=50)
    assert repository.stage("probe").returncode == 0
    assert json.loads(file.read_text())["files"] == 37


def test_dvc_prepares_again_when_an_image_has_changed(repository):
    def ran():
        done = repository.run(*repository.dvc("repro", "prepare_data"))
        assert done.returncode == 0, done.stdout + done.stderr
        return set(re.findall(r"Running stage '([^']+)'", done.stdout))

    ran()
    assert ran() == ALWAYS
    path = repository.path / "data/raw/ant/000.png"
    Image.new("L", (12, 10), 41).save(path)
    assert ran() == ALWAYS | {"prepare_data"}
    assert ran() == ALWAYS
