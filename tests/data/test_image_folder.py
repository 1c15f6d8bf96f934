"""A person's folder of images: two layouts, every mistake in them a line that says what to do."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from stages import prepare_data, probe
from stages.lib.core import hardware, prepared
from stages.lib.core.errors import UserError
from stages.lib.core.stage import run_stage
from stages.lib.data import image_folder, layout, sources, splits, staging
from tests.conftest import ROOT, TINY

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
    assert (found.labels.dtype, set(found.parts)) == (np.int64, {0})
    levels = found.images[:].mean(axis=(1, 2, 3))
    assert [list(LEVELS.values())[label] for label in found.labels] == pytest.approx(
        levels - np.tile(np.arange(12), 3)
    )


@pytest.mark.parametrize("test", ["test", "TEST"])
def test_a_test_folder_is_the_whole_of_the_test_part(layered, test):
    (layered / "test").rename(layered / test)
    found = read(layered)
    assert np.bincount(found.parts).tolist() == [30, 0, 12]
    parts = splits.parts(found.labels, found.parts, wanted(layered), found.classes)
    assert [len(parts[name]) for name in prepared.PARTS] == [24, 6, 12]
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(42))
    files = image_folder.list_images(layered).files
    assert all(files[index].startswith(f"{test}/") for index in parts["test"])
    assert np.bincount(found.labels[parts["validation"]]).tolist() == [2, 2, 2]


def test_threads_and_blocks_do_not_change_a_byte(root, monkeypatch):
    for number in range(4, 10):  # a block of unreadable files alone
        (root / f"ant/{number:03}.png").write_bytes(b"x")
    one = read(root, max_unreadable=6).images.path.read_bytes()
    monkeypatch.setattr(hardware, "cores", lambda: 7)
    monkeypatch.setattr(staging, "_BLOCK_BYTES", 3 * 64)
    assert read(root, max_unreadable=6).images.path.read_bytes() == one


def test_folders_inside_a_class_and_links_are_followed_and_clutter_is_not_seen(root, tmp_path):
    fill(root / "ant/more/and more", 40, 2)
    fill(tmp_path / "elsewhere", 40, 3)
    (root / "ant/linked").symlink_to(tmp_path / "elsewhere")
    (root / "bee/link.png").symlink_to(tmp_path / "elsewhere/000.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    for name in (".DS_Store", "ant/Thumbs.db", "ant/desktop.ini", "ant/._000.png"):
        (root / name).write_bytes(b"x")
    clutter = (".git", "__MACOSX", "ant/.thumbnails", "@eaDir", "$RECYCLE.BIN", "ant/@eaDir")
    for name in (*clutter, "System Volume Information", "lost+found", "#recycle", "found.000"):
        (root / name).mkdir()
        fill(root / name / "inside", 40, 1)
    assert np.bincount(read(root).labels).tolist() == [17, 13, 12, 3]


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
    # Names are stored as they are, but for bytes that are no text.
    stored = os.fsencode(name).decode("utf-8", "backslashreplace")
    assert sorted(found.classes) == sorted(["ant", "bee", "cow", stored])


def test_unreadable_files_are_listed_with_their_reasons(root):
    (root / "ant/empty.png").touch()
    (root / "ant" / os.fsdecode(b"caf\xe9\n.png")).write_bytes(b"x")
    (root / "bee/notes.txt").write_text("hello")
    whole = (root / "cow/000.png").read_bytes()
    (root / "cow/torn.png").write_bytes(whole[: len(whole) // 2])
    for number in range(21):
        (root / f"cow/x{number:02}").touch()
    message = refusal(root, max_unreadable=2)
    assert "25 of 61 files" in message
    assert "raise data.max_unreadable (now 2)" in message
    assert message.endswith("\n  and 5 more")
    assert "  ant/empty.png: an empty file" in message
    assert r"  ant/caf\xe9\n.png: not an image" in message
    assert "  bee/notes.txt: not an image" in message
    assert re.search(r"  cow/torn\.png: \w+", message)


def test_what_is_allowed_to_be_unreadable_is_left_out_and_told(layered):
    (layered / "labels.csv").touch()
    (layered / "test/bee/000.png").write_bytes(b"x")
    found = read(layered, max_unreadable=1)
    assert np.bincount(found.labels).tolist() == [14, 13, 14]
    assert np.bincount(found.parts).tolist() == [30, 0, 11]
    assert [entry["file"] for entry in found.unreadable] == ["test/bee/000.png"]
    beside, left_out, reason = found.notes
    assert beside == "data.root: files beside the class folders are not read: labels.csv"
    assert "1 of 42 files left out, as they cannot be read" in left_out
    assert "test/bee/000.png: not an image" in reason


@pytest.mark.parametrize("part", ["", "train/", "test/"])
def test_a_class_or_a_set_of_unreadable_files_alone_is_refused(root, layered, part):
    place = layered if part else root
    for path in (place / part / "bee").iterdir():
        path.write_bytes(b"x")
    message = refusal(place, max_unreadable=99, validation_images=3, test_images=3)
    where = f" in {part[:-1]}" if part else ""
    assert (
        f"{place}: none of the files of bee{where} can be read ({part}bee/000.png: not" in message
    )
    for path in root.glob("*/*"):
        path.write_bytes(b"x")
    assert "36 of 36 files" in refusal(root, image_size="auto")


PARTS = ["train/ant", "train/bee", "test/ant", "test/bee"]


def make(folder, *places):
    for place in places:
        fill(folder / place, 40, 3)


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name in ("nothing", "file"):
        assert f"put the images in {tmp_path}/{name}/CLASS/" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([], "too few class folders (none): it has no folders; allowed: at least two"),
        (["ant"], "too few class folders (ant)"),
        (["train", "test"], "holds test, train, which look like parts of a set, without class"),
        (["part_1", "part_2"], "which look like parts of a set, without class folders inside"),
        (["part_1/ant", "part_1/bee", "part_2/ant"], "which look like pieces of one set, not like"),
        ([*PARTS[:2], "val/ant"], "images/val has too few class folders (ant)"),
        ([*PARTS, "training/ant", "training/bee"], "two folders for train"),
        ([*PARTS, "more/ant"], "holds more, test, train, test, train with folders inside"),
        (["train/ant", "train/bee", "cat", "dog"], "holds cat, dog, train, train with folders"),
        (PARTS[:3], "images/test has too few class folders (ant)"),
        ([*PARTS, "test/cow"], "classes in only one of train and test: cow"),
        ([*PARTS, "val/ant", "val/cow"], "classes in only one of train and validation: bee, cow"),
        (["ant", "Ant", "bee"], "Ant and ant are the same class"),
        (["caf\u00e9", "cafe\u0301", "bee"], "are the same class"),
        ([*PARTS[:3], "test/Bee"], "train/bee and test/Bee are the same class"),
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
    assert "train/ looks like a part of the set; it has no folders inside, so it" in found.notes[0]


IN_PARTS = {"train": 6, "validation": 3, "test": 3}


def parts_of(found):
    return {
        name: [found.files[index] for index in np.flatnonzero(found.parts == number)]
        for number, name in enumerate(prepared.PARTS)
        if (found.parts == number).any()
    }


@pytest.mark.parametrize("inner", ["", "same/"])
@pytest.mark.parametrize("outer", ["", "archive/"])
@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"), ("TRAIN", "Valid", "Test"), ("training", "validation", "testing"),
        ("seg_train", "seg_dev", "seg_test"), ("Training", None, "Testing"),
        ("train", "val", None), (None, "val", "test"), ("TrainSet", None, "TestSet"),
        ("train_images", "val_images", "test_images"),
    ],
)  # fmt: skip
def test_the_persons_own_parts_are_used_whatever_they_are_called(tmp_path, names, outer, inner):
    named = {part: name for part, name in zip(prepared.PARTS, names, strict=True) if name}
    for part, name in named.items():
        for kind in ("ant", "bee"):
            fill(tmp_path / f"images/{outer}{name}/{inner}{kind}", LEVELS[kind], IN_PARTS[part])
    found = image_folder.list_images(tmp_path / "images")
    assert found.classes == ["ant", "bee"]
    assert {part: len(files) for part, files in parts_of(found).items()} == {
        part: 2 * IN_PARTS[part] for part in named
    }
    for part, files in parts_of(found).items():
        assert all(f"{named[part]}/{inner}" in file for file in files)
    assert bool(outer) == any("read from the folder archive/" in note for note in found.notes)
    if "train" not in named:
        return
    settings = wanted(tmp_path, validation_images=2, test_images=2)
    divided = splits.parts(found.labels, found.parts, settings, found.classes)
    drawn = {part: 2 for part in ("validation", "test") if part not in named}
    assert {part: len(index) for part, index in divided.items()} == {
        "train": 12 - sum(drawn.values()),
        **{part: drawn.get(part, 6) for part in ("validation", "test")},
    }
    everything = np.sort(np.concatenate(list(divided.values())))
    assert np.array_equal(everything, np.arange(len(found.labels)))


@pytest.mark.parametrize("place", ["test", "seg_pred/seg_pred"])
def test_parts_without_labels_are_left_out_with_a_word(tmp_path, place):
    part = place.partition("/")[0].replace("pred", "train") if "_" in place else "train"
    make(tmp_path / "images", f"{part}/ant", f"{part}/bee", place)
    if "_" in place:
        make(tmp_path / "images", "seg_test/ant", "seg_test/bee")
    found = image_folder.list_images(tmp_path / "images")
    assert not any(place in file for file in found.files)
    assert any("not read" in note and place.partition("/")[0] in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("train", "Test", "VALID", "part_1", "fold 2", "train_images")),
        *((name, False) for name in ("bus", "train station", "party_2", "a1", "testudo", "2")),
    ],
)
def test_names_that_look_like_parts(name, expected):
    assert layout.looks_like_a_part(name) is expected


ROWS = [("a/0.png", "ant"), ("a/1.png", "ant"), ("b/2.png", "bee"), ("b/3.png", "bee")]


def table(folder, text, name="labels.csv"):
    for file, _ in ROWS:
        fill((folder / file).parent, 40, 1, start=int(file[2]))
        (folder / file).parent.joinpath(f"00{file[2]}.png").rename(folder / file)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def lines(rows, delimiter=","):
    return "".join(delimiter.join(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        lines([("file", "label"), *ROWS]),
        "\ufeff" + lines([("Label", "more", "Image_Path"), *((b, "x", a) for a, b in ROWS)], ";"),
        lines([("image_id", "dx"), *((file[2:3], label) for file, label in ROWS)], "\t"),
        lines([("filename", "class"), *((file[2:], label) for file, label in ROWS)]),
        lines(ROWS),
        lines([("file", "label"), *ROWS, ROWS[0]]) + "\n,\n",
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_labels_in_a_table(tmp_path, text, named):
    path = table(tmp_path / "images", text)
    if not named:  # a folder whose folders are no classes
        for old, new in (("a", "part_1"), ("b", "part_2")):
            (path.parent / old).rename(path.parent / new)
        path.write_text(text.replace("a/", "part_1/").replace("b/", "part_2/"), encoding="utf-8")
    found = image_folder.list_images(path if named else path.parent)
    assert found.classes == ["ant", "bee"]
    assert [Path(file).name for file in found.files] == [file[2:] for file, _ in ROWS]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert "labels are those in labels.csv" in found.notes[-1]


def test_a_table_says_which_image_is_in_which_part(tmp_path):
    parts = ("train", "TEST", "val", "training")
    rows = [(*row, part) for row, part in zip(ROWS * 2, parts * 2, strict=False)]
    text = lines([("file", "label", "split"), *rows[:4]])
    with pytest.raises(UserError, match="classes in only one of train and"):
        image_folder.list_images(table(tmp_path / "images", text))
    root = tmp_path / "more"
    for name in ("train", "val", "test"):
        for kind in LEVELS:
            fill(root / name, LEVELS[kind], 1, start={"ant": 1, "bee": 2, "cow": 3}[kind])
        rows = [(f"{name}/00{number}.png", str(10 - number)) for number in (1, 2, 3)]
        (root / f"{name}.csv").write_text(lines([("path", "target"), *rows]))
    found = image_folder.list_images(root)
    assert found.classes == ["7", "8", "9"]
    assert {part: len(files) for part, files in parts_of(found).items()} == dict.fromkeys(
        prepared.PARTS, 3
    )
    assert all(Path(file).stem[-1] == str(3 - label) for file, label in zip(
        found.files, found.labels, strict=True
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines([("file", "label"), ("a/9.png", "ant")]), "1 files that are not below its folder"),
        (lines([("file", "label"), *ROWS, ("a/0.png", "bee")]), "row 6: a/0.png has the label bee"),
        (lines([("file", "label"), *ROWS, ("a/0.png", "")]), "row 6: no label; fill or remove it"),
        (lines([("file", "label"), *ROWS[:2]]), "too few labels (ant); allowed: at least two"),
        (lines([("photo", "kind"), *ROWS]), "no columns file and label; it has photo, kind"),
        ("", "no columns file and label; it has none"),
        (lines([("file", "label", "split"), ("a/0.png", "ant", "later")]), "row 2: later is"),
        ('file,label\n"a/0.png,' + "x" * 200_000, "not a CSV of UTF-8 text"),
        (lines([("file", "label"), ("../../x.png", "ant")]), "not below its folder: ../../x.png"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_with_the_row(tmp_path, text, words):
    assert words in refusal(table(tmp_path / "images", text))


def test_a_table_beside_class_folders_is_mentioned(root):
    (root / "labels.csv").write_text("file,label\nant/000.png,bee\n")
    assert f"({root}/labels.csv" in image_folder.list_images(root).notes[0].replace(
        "data.root: ", "", 2
    )


@pytest.mark.parametrize("part", ["", "train", "test"])
def test_an_empty_class_is_named(root, layered, part):
    place = layered if part else root
    if part:
        fill(layered / {"train": "test", "test": "train"}[part] / "dog", 9, 3)
    (place / part / "dog/empty inside").mkdir(parents=True)
    assert f"without a file: {part + '/' * bool(part)}dog;" in refusal(place)


@pytest.mark.parametrize(
    ("link", "target", "words"),
    [("ant/deeper/back", "ant", ": a link that leads back"), ("ant/up", ".", "/ant: a link that"),
     ("dog", "dog", " is a link that leads nowhere"), ("dog", "nothing", " is a link that leads")],
)  # fmt: skip
def test_a_link_back_to_a_folder_above_or_to_nowhere_is_an_error(root, link, target, words):
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / target)
    assert f"{root}/{link}{words}" in refusal(root)


@pytest.mark.parametrize(
    ("file", "size", "words"),
    [
        ("cow/other.png", (13, 10), "has 13×10 pixels, the first 12×10; allowed: images of one"),
        (
            "ant/000.png",
            (12, 7),
            "has 12×7 pixels, the first 12×7; allowed: images of one size, at",
        ),
    ],
)
def test_images_of_one_size_keep_it_and_others_need_a_size(root, file, size, words):
    assert read(root, image_size="auto", color="auto").images.shape == (36, 3, 10, 12)
    Image.new("L", size).save(root / file)
    assert f"{file} {words}" in refusal(root, image_size="auto")


def test_parts_larger_than_the_set_are_refused_before_decoding(root, monkeypatch):
    monkeypatch.setattr(staging, "decode", None)
    assert "9 + 100 of 36 images leave 0" in refusal(root, validation_images=100)


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_of_too_few_images_is_named(root, layered, count):
    fill(root / "dog", 9, count)
    assert f"class dog has {count} image" in refusal(root)
    make(layered, "train/dog", "test/dog")
    for path in sorted((layered / "train/dog").iterdir())[1:]:
        path.unlink()
    assert "class dog has 1 image" in refusal(layered)
    assert "data.validation_images: 30 of 31 images leave 1" in refusal(
        layered, validation_images=30
    )


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


@pytest.fixture
def stage(root, monkeypatch):
    """Runs a stage on the three classes, in the folder that holds them."""
    folder = root.parent
    for name in ("dvc.yaml", "probe/dvc.yaml", "requirements.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.chdir(folder)

    def run(script, root="images", **changes):
        values = TINY | {"data": vars(wanted(root, **changes))}
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
        run_stage(script.main, name=script.__name__.rpartition(".")[2], argv=[])

    return run


def test_what_phones_put_beside_photos_is_not_read(stage, root, capsys):
    for name in ("1.MOV", "1.aae", "1.png.json", "1.mp4"):
        (root / "ant" / name).write_bytes(b"x")
    stage(prepare_data)
    assert (
        "note: data.root: 4 of the files are films or notes by their names (.aae, .json, .mov,"
        " .mp4), and not read" in capsys.readouterr().err
    )
    assert sum(prepared.read_meta(Path("data/prepared"))["images"].values()) == 36


def test_names_with_joiners_stay_as_they_are(stage, root):
    names = sorted(
        ["\N{ARABIC LETTER MEEM}\u200c\N{ARABIC LETTER KHAH}", "\U0001f469\u200d\U0001f680"]
    )
    for old, new in zip(("ant", "bee"), names, strict=True):
        (root / old).rename(root / new)
    stage(prepare_data)
    assert prepared.read_meta(Path("data/prepared"))["classes"] == ["cow", *names]


@pytest.mark.parametrize("given", ["parts", "numbers"])
def test_no_training_images_are_needed(stage, root, capsys, given):
    if given == "parts":
        for name, level in LEVELS.items():
            fill(root.parent / "parts/val" / name, level, 3)
            fill(root.parent / "parts/test" / name, level, 4, start=3)
        stage(prepare_data, "parts")
    else:
        stage(prepare_data, validation_images=15, test_images=21)
    said = capsys.readouterr().err
    assert "note: there are no training images: what trains (fine-tuning, packed files)" in said
    assert f"note: images: ant: {3 + 4 if given == 'parts' else 12}, bee: " in said
    assert "the same pixels" not in said
    found = prepared.load(Path("data/prepared"))
    sizes = [9, 9, 12] if given == "parts" else [15, 15, 21]
    assert [len(part.labels) for part in found[:3]] == sizes
    assert np.array_equal(found.train.images, found.validation.images)
    assert prepared.read_meta(Path("data/prepared"))["without_training_images"] is True


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_stage_leaves_what_later_stages_load(stage, root, capsys):
    (root / "ant/broken.png").write_bytes(b"x")
    folder = Path("data/prepared")
    stage(prepare_data, max_unreadable=1)
    assert capsys.readouterr().err.splitlines() == [
        "note: images: ant: 12, bee: 12, cow: 12",
        "note: data.root: 1 of 37 files left out, as they cannot be read:",
        "note:   ant/broken.png: not an image, or in a format that Pillow does not read",
    ]
    found, meta = prepared.load(folder), prepared.read_meta(folder)
    assert [len(part.labels) for part in found[:3]] == [21, 6, 9]
    for part in found[:3]:
        level = part.images.mean(axis=(1, 2, 3))
        assert np.array_equal(part.labels, np.digitize(level, [100, 180]))
    assert (meta["source"], meta["unreadable_count"]) == ("image_folder", 1)
    assert meta["unreadable"][0]["file"] == "ant/broken.png"
    before = contents(folder)
    assert "images.staged" not in before
    stage(prepare_data, max_unreadable=1)
    assert contents(folder) == before
    with pytest.raises(SystemExit):
        stage(prepare_data)
    assert "broken.png" in capsys.readouterr().err
    assert contents(folder) == before
    assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize("script", [probe, prepare_data])
@pytest.mark.parametrize(
    "place", ["data/prepared", "data/prepared/mine", "data/../data/prepared", "data", "."]
)
def test_images_where_results_are_written_are_refused(stage, capsys, script, place):
    with pytest.raises(SystemExit):
        stage(script, place)
    assert "put the images " in capsys.readouterr().err


def test_images_that_change_while_they_are_read_leave_nothing(stage, root, capsys, monkeypatch):
    def edited(*arguments):
        fill(root / "bee", 120, 1, start=50)
        return splits.parts(*arguments)

    monkeypatch.setattr(prepare_data, "splits", SimpleNamespace(parts=edited))
    with pytest.raises(SystemExit):
        stage(prepare_data)
    assert "images changed while it was read" in capsys.readouterr().err
    assert not Path("data/prepared").exists()
