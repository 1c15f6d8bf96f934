"""Images from the source to the arrays that every stage maps: whole, split fairly, checked."""

import io
import json
import re

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core import prepared
from stages.lib.core.errors import UserError
from stages.lib.core.prepared import Part
from stages.lib.data import sources, splits

few_examples = settings(deadline=None, derandomize=True, max_examples=50)


def test_digits_are_1797_scans_in_10_classes_whose_17_levels_spread_evenly_over_0_to_255():
    images, labels, classes = sources.digits()
    scans = sklearn.datasets.load_digits().images
    assert np.array_equal(np.rint(images / 255 * 16), scans)
    assert (images.shape, images.dtype) == ((1797, 8, 8), np.uint8)
    assert (labels.shape, labels.dtype) == ((1797,), np.int64)
    assert classes == list("0123456789")
    levels = np.unique(images).astype(int)
    assert (len(levels), levels[0], levels[-1]) == (17, 0, 255)
    assert set(np.diff(levels)) <= {15, 16}


NAMES = list("abcde")


def split(labels, validation, test, seed):
    return splits.stratified(labels, {"test": test, "validation": validation}, seed, NAMES)


def farthest_from_proportion(labels, index):
    """Images by which the class that is farthest off its share of a part is off."""
    classes = labels.max() + 1
    expected = np.bincount(labels, minlength=classes) * len(index) / len(labels)
    return np.abs(np.bincount(labels[index], minlength=classes) - expected).max()


@st.composite
def label_sets(draw):
    """Labels, and part sizes that leave every class enough images."""
    counts = draw(st.lists(st.integers(8, 40), min_size=2, max_size=5))
    labels = np.repeat(np.arange(len(counts)), counts)
    sizes = st.integers(len(counts), len(labels) // 3)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return labels[order], draw(sizes), draw(sizes)


@few_examples
@given(label_sets(), st.integers(0, 2**32 - 1), st.booleans())
def test_parts_share_out_everything_in_proportion(case, seed, own_test):
    labels, validation, test = case
    sizes = {"validation": validation} if own_test else {"test": test, "validation": validation}
    parts = splits.stratified(labels, sizes, seed, NAMES)
    assert {name: len(parts[name]) for name in sizes} == sizes
    together = np.concatenate(list(parts.values()))
    assert np.array_equal(np.sort(together), np.arange(len(labels)))
    assert all((np.diff(index) > 0).all() for index in parts.values())
    # Each part is drawn from what those before have left: the roundings add up.
    for name, index in parts.items():
        most = 1 if own_test or name == "test" else 2
        assert farthest_from_proportion(labels, index) <= most


LABELS = np.repeat(np.arange(4), 25)


def test_the_parts_depend_on_the_seed_and_on_nothing_else():
    first, again, other = (split(LABELS, 20, 30, seed) for seed in (7, 7, 8))
    for name in prepared.PARTS:
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize(
    ("validation", "test", "words"),
    [
        (3, 30, "data.validation_images: 3 is fewer than the 4 classes"),
        (30, 3, "data.test_images: 3 is fewer than the 4 classes"),
        (50, 47, "47 + 50 of 100 images leave 3 for training"),
        (9000, 50, "50 + 9000 of 100 images leave 0 for training"),
    ],
)
def test_a_part_of_an_image_a_class_is_enough_and_a_smaller_one_refused(validation, test, words):
    parts = split(LABELS, 4, 92, 0)
    assert sorted(LABELS[parts["validation"]]) == sorted(LABELS[parts["train"]]) == [0, 1, 2, 3]
    with pytest.raises(UserError) as error:
        split(LABELS, validation, test, 0)
    assert words in str(error.value)
    assert "allowed: at least one image" in str(error.value)


def pictures(count, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, channels, 5, 4), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 8, 9, 19])
@pytest.mark.parametrize("rows", [1, 8, 100])
def test_statistics_by_blocks_are_those_of_all_at_once(monkeypatch, count, rows):
    monkeypatch.setattr(prepared, "BLOCK_BYTES", rows * 60)
    images = pictures(count)
    images[:, 2] = 77
    mean, std = prepared.channel_statistics(images)
    scaled = images / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), abs=1e-6)
    # A constant channel gets deviation 1.
    assert std == pytest.approx([*scaled[:, :2].std(axis=(0, 2, 3)), 1], abs=1e-6)


CLASSES = ["cat", "dog", "é"]
UNREADABLE = [{"file": "cat/é.jpg", "reason": "an empty file"}]
SIZES = {"train": 20, "validation": 6, "test": 7}


@pytest.fixture
def parts():
    return {
        name: Part(pictures(size, seed=size), np.arange(size, dtype=np.int64) % len(CLASSES))
        for name, size in SIZES.items()
    }


@pytest.fixture
def folder(tmp_path, parts):
    prepared.write(tmp_path, parts, CLASSES, "a source", UNREADABLE)
    return tmp_path


def test_what_was_written_is_loaded(folder, parts):
    found = prepared.load(folder)
    for name, part in parts.items():
        assert np.array_equal(getattr(found, name).images, part.images)
        assert np.array_equal(getattr(found, name).labels, part.labels)
    assert found.classes == CLASSES
    assert found.image_shape == (3, 5, 4)
    assert found.checksum == prepared.checksum(parts)
    assert isinstance(found.train.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.train.images[0] = 0
    assert (found.mean, found.std) == prepared.channel_statistics(parts["train"].images)


def test_the_files_are_those_of_numpy_and_the_same_each_time(folder, parts, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    prepared.write(again, parts, CLASSES, "a source", UNREADABLE)
    np.save(folder / "test_images.npy", parts["test"].images)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_classes_are_counted_and_told_in_a_line(folder):
    meta = prepared.read_meta(folder)
    assert meta["counts"] == {"train": [7, 7, 6], "validation": [2, 2, 2], "test": [3, 2, 2]}
    assert prepared.commonest(meta, "test") == ("cat", 3 / 7)
    assert prepared.summary(meta) == (
        "3 classes, images: 20 train, 6 validation, 7 test (42.9 % of the commonest class)"
    )
    assert prepared.class_counts(meta) == "images: cat: 12, dog: 11, é: 10"


def test_of_unreadable_files_a_thousand_are_named(tmp_path):
    part = Part(pictures(100), np.arange(100) % 50)
    names = [f"class {number}" for number in range(50)]
    unreadable = [{"file": str(number), "reason": "torn"} for number in range(1500)]
    parts = dict.fromkeys(prepared.PARTS, part)
    meta = prepared.write(tmp_path, parts, names, "image_folder", unreadable)
    assert prepared.read_meta(tmp_path) == meta
    assert (meta["unreadable_count"], meta["unreadable"]) == (1500, unreadable[:1000])
    # Of many classes the line names some, as they may be shown.
    assert prepared.class_counts(meta | {"classes": ["a\n", *names[1:]]}).startswith(
        "images: a\\n: 6, class 1: 6, "
    )
    assert prepared.class_counts(meta).endswith("class 7: 6 and 42 more")


@pytest.mark.parametrize("name", prepared.PARTS)
@pytest.mark.parametrize("kind", [0, 1])
def test_one_other_pixel_or_label_changes_the_checksum(parts, name, kind):
    before = prepared.checksum(parts)
    parts[name][kind].flat[-1] ^= 1
    assert prepared.checksum(parts) != before


def test_the_checksum_knows_the_shape_but_not_the_layout_in_memory(parts):
    part, whole = parts["test"], prepared.checksum(parts)
    turned = Part(np.asfortranarray(part.images), part.labels)
    assert prepared.checksum(parts | {"test": turned}) == whole
    reshaped = Part(part.images.reshape(-1, 3, 4, 5), part.labels)
    assert prepared.checksum(parts | {"test": reshaped}) != whole


def refusal(folder, name):
    """The error that loading ends in; it must name the file and how to get a sound one."""
    with pytest.raises(UserError) as error:
        prepared.load(folder)
    message = str(error.value)
    assert message.startswith(f"{folder / name}: ")
    assert "`dvc repro prepare_data`" in message
    return message


ARRAYS = [f"{part}_{kind}.npy" for part in prepared.PARTS for kind in ("images", "labels")]


@pytest.mark.parametrize("name", [*ARRAYS, "meta.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert "not found" in refusal(folder, name)


def npz():
    """An archive, in the place of an array."""
    file = io.BytesIO()
    np.savez(file, images=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda content, kept=kept: content[:kept] for kept in (0, 1, 9, 60, 127, 128, -1)),
        lambda content: b"nonsense",
        lambda content: b"\x80\x04K\x01.",
        lambda content: content[:60] + b"\0" + content[61:],
        lambda content: npz(),
    ],
)
@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy"])
def test_an_array_cut_short_or_something_else_is_named(folder, name, damage):
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    assert ": not a whole .npy file" in refusal(folder, name)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("test_images.npy", np.zeros((7, 3, 5, 4), dtype=np.float32)),
        ("test_images.npy", np.zeros((8, 3, 5, 4), dtype=np.uint8)),
        ("test_images.npy", np.zeros((7, 60), dtype=np.uint8)),
        ("test_labels.npy", np.zeros(7, dtype=">i8")),
    ],
)
def test_an_array_of_another_type_or_shape_is_named_with_both(folder, name, array):
    np.save(folder / name, array)
    message = refusal(folder, name)
    assert f"holds {array.dtype} {list(array.shape)} where meta.json announces" in message


@pytest.mark.parametrize("label", [-1, len(CLASSES)])
def test_a_label_outside_the_classes_is_refused(folder, parts, label):
    labels = parts["test"].labels
    labels[-1] = label
    np.save(folder / "test_labels.npy", labels)
    assert "a label outside the 3 classes" in refusal(folder, "test_labels.npy")


@pytest.mark.parametrize(
    "change",
    [
        *(b"", b"{", b'{"source": "digits', b"[]", b"null", b"{}", b"\xff", b"[" * 99_999),
        {"more": 1},
        {"mean": [0.5]},
        {"images": 5},
        {"images": SIZES | {"test": 8}},
        {"counts": {"train": [20], "validation": [6], "test": [7]}},
        {"counts": {}},
        {"image_shape": [3, 5]},
        {"source": None},
        {"unreadable_count": 2},
        {"unreadable": [{"file": "x", "reason": 3}]},
    ],
)
def test_a_meta_file_cut_short_or_with_other_keys_or_values_is_named(folder, change):
    path = folder / "meta.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_bytes()) | change).encode()
    path.write_bytes(change)
    assert re.search(": not (JSON|the description of a prepared data)", refusal(folder, path.name))
