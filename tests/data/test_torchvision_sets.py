"""Public sets from files in their real formats, written here: nothing is downloaded."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import urllib.error
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets
from torchvision.datasets import utils

from stages.lib.core import params
from stages.lib.core.errors import UserError
from stages.lib.data import sources, torchvision_sets

TRAIN, TEST = 23, 11


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def unplugged(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(utils.urllib.request, "urlopen", unplugged)


def md5(content):
    return hashlib.md5(content).hexdigest()


def pixels(count, *shape):
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def digits_of(count, classes=10):
    return np.arange(count) % classes


def idx(array):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def put_mnist(root, monkeypatch, name):
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    resources = []
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        images, labels = pixels(count, 28, 28), digits_of(count)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = gzip.compress(idx(array), mtime=0)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(content)
            resources.append((f"{part}-{kind}-ubyte.gz", md5(content)))
    monkeypatch.setattr(getattr(datasets, name), "resources", resources)
    return folder / "train-images-idx3-ubyte.gz"


def put_cifar(root, monkeypatch, name, classes, batches, key, meta_key):
    dataset = getattr(datasets, name)
    root.mkdir()
    meta_file, (test_file, _) = dataset.meta["filename"], dataset.test_list[0]

    def batch(images, labels):
        rows = images.reshape(len(images), -1)
        return pickle.dumps({"data": rows, key: labels.tolist()}, protocol=2)

    parts = [np.array_split(array, len(batches))
             for array in (pixels(TRAIN, 3, 32, 32), digits_of(TRAIN, classes))]  # fmt: skip
    files = dict(zip(batches, map(batch, *parts), strict=True))
    files[test_file] = batch(pixels(TEST, 3, 32, 32), digits_of(TEST, classes))
    names = [f"class {number}" for number in range(classes)]
    files[meta_file] = pickle.dumps({meta_key: names}, protocol=2)
    archive = root / dataset.filename
    with tarfile.open(archive, "w:gz") as tar:
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{dataset.base_folder}/{file}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(dataset, "tgz_md5", md5(archive.read_bytes()))
    monkeypatch.setattr(dataset, "train_list", [[file, md5(files[file])] for file in batches])
    monkeypatch.setattr(dataset, "test_list", [[test_file, md5(files[test_file])]])
    monkeypatch.setitem(dataset.meta, "md5", md5(files[meta_file]))
    return archive


def put_svhn(root, monkeypatch):
    root.mkdir()
    found = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        path = root / f"{part}_32x32.mat"
        labels = digits_of(count)
        labels[labels == 0] = 10  # as the files have it
        images = pixels(count, 3, 32, 32).transpose(2, 3, 1, 0)
        scipy.io.savemat(path, {"X": images, "y": labels[:, None].astype(np.uint8)})
        found[part] = [f"http://nowhere/{path.name}", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", found)
    return root / "train_32x32.mat"


def eurosat_jpegs():
    """The files of a set in class folders, by name."""
    files = {}
    for number, image in enumerate(pixels(TRAIN + TEST, 3, 64, 64)):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG")
        files[f"class {number % 10}/class {number % 10}_{number}.jpg"] = file.getvalue()
    return files


def put_eurosat(root, monkeypatch):
    archive = root / "eurosat" / "EuroSAT.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in eurosat_jpegs().items():
            zipped.writestr(f"2750/{name}", content)
    whole = md5(archive.read_bytes())
    known = torchvision_sets.FOLDER_SETS["eurosat"]
    changed = known._replace(md5=whole, files=TRAIN + TEST)
    monkeypatch.setitem(torchvision_sets.FOLDER_SETS, "eurosat", changed)
    extract = datasets.eurosat.download_and_extract_archive

    def with_this_sum(url, download_root, md5):
        # What torchvision asks for is what a person is told.
        assert (url.rpartition("/")[2], md5) == (archive.name, known.md5)
        extract(url, download_root, md5=whole)

    monkeypatch.setattr(datasets.eurosat, "download_and_extract_archive", with_this_sum)
    return archive


BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
PUT = {
    "mnist": lambda *place: put_mnist(*place, "MNIST"),
    "fashion_mnist": lambda *place: put_mnist(*place, "FashionMNIST"),
    "cifar10": lambda *place: put_cifar(*place, "CIFAR10", 10, BATCHES, "labels", "label_names"),
    "cifar100": lambda *place: put_cifar(
        *place, "CIFAR100", 100, ["train"], "fine_labels", "fine_label_names"
    ),
    "svhn": put_svhn,
    "eurosat": put_eurosat,
}
ARRAYS = [name for name in PUT if name not in torchvision_sets.FOLDER_SETS]
SHAPES = dict.fromkeys(ARRAYS, (3, 32, 32)) | dict.fromkeys(("mnist", "fashion_mnist"), (1, 28, 28))


def read(source, root, image_size="auto", color="auto"):
    data = SimpleNamespace(
        source=source, root=str(root), image_size=image_size, color=color, max_unreadable=0,
        validation_images=10, test_images=10, split_seed=0,
    )  # fmt: skip
    return sources.read(data, root.parent / "staged")


@pytest.fixture(params=PUT)
def source(request):
    return request.param


@pytest.fixture
def there(source, tmp_path, monkeypatch):
    return PUT[source](tmp_path / "sets", monkeypatch)


@pytest.mark.parametrize("source", ARRAYS, indirect=True)
def test_images_and_labels_are_those_of_the_files(source, there, tmp_path):
    found = read(source, tmp_path / "sets")
    shape = SHAPES[source]
    assert np.bincount(found.parts).tolist() == [TRAIN, 0, TEST]
    assert np.array_equal(found.images[:TRAIN], pixels(TRAIN, *shape).reshape(TRAIN, *shape))
    assert np.array_equal(found.images[TRAIN:], pixels(TEST, *shape))
    classes = 100 if source == "cifar100" else 10
    assert found.labels.dtype == np.int64
    assert np.array_equal(found.labels[:TRAIN], digits_of(TRAIN, classes))
    assert np.array_equal(found.labels[TRAIN:], digits_of(TEST, classes))
    assert len(found.classes) == classes
    name = {"mnist": "3", "svhn": "3", "fashion_mnist": "Dress"}.get(source, "class 3")
    assert found.classes[3] == name


def test_files_in_class_folders_are_decoded_as_a_persons_own(tmp_path, monkeypatch):
    put_eurosat(tmp_path / "sets", monkeypatch)
    found = read("eurosat", tmp_path / "sets")
    files = sorted(eurosat_jpegs().items())
    assert found.classes == [f"class {number}" for number in range(10)]
    assert found.labels.tolist() == [int(name[6]) for name, _ in files]
    assert not found.parts.any()
    for image, (_, content) in zip(found.images[:], files, strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(content))))


def test_a_half_unpacked_folder_is_not_believed(tmp_path, monkeypatch):
    archive = put_eurosat(tmp_path / "sets", monkeypatch)
    whole = read("eurosat", tmp_path / "sets").images[:]
    lost = archive.parent / "2750/class 3/class 3_3.jpg"
    lost.unlink()
    assert np.array_equal(read("eurosat", tmp_path / "sets").images[:], whole)
    lost.unlink()
    archive.unlink()
    with pytest.raises(UserError, match=r"has not 34 files\); put EuroSAT\.zip \(MD5 "):
        read("eurosat", tmp_path / "sets")


@pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
def test_images_are_given_another_size_and_color(tmp_path, monkeypatch, color, channels):
    for source in ("mnist", "svhn", "digits"):
        if source in PUT:
            PUT[source](tmp_path / source, monkeypatch)
        found = read(source, tmp_path / source, image_size=16, color=color)
        assert found.images.shape[1:] == (channels, 16, 16)
        assert source == "svhn" or (found.images[:5] == found.images[:5][:, :1]).all()


def test_a_torn_file_is_named_with_its_sum_and_place(source, there, tmp_path):
    whole = md5(there.read_bytes())
    there.write_bytes(there.read_bytes()[:-20])
    with pytest.raises(UserError) as error:
        read(source, tmp_path / "sets")
    (message,) = str(error.value).splitlines()
    assert message.startswith(f"data.source {source}: ")
    assert f"put {there.name} (MD5 {whole}, the one there is torn" in message
    assert f"into {there.parent}" in message


def test_what_was_unpacked_is_enough(source, there, tmp_path):
    if source != "svhn":
        read(source, tmp_path / "sets")
        there.unlink()
    assert len(read(source, tmp_path / "sets").labels) == TRAIN + TEST


def test_without_a_network_the_message_names_every_file_and_its_place(source, tmp_path):
    with pytest.raises(UserError) as error:
        read(source, tmp_path / "sets")
    (message,) = str(error.value).splitlines()
    names = {
        "mnist": ["train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "t10k-labels"],
        "fashion_mnist": ["train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"],
        "cifar10": ["cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a)"],
        "cifar100": ["cifar-100-python.tar.gz (MD5 eb9058c3a382ffc7106e4002c42a8d85)"],
        "svhn": ["train_32x32.mat (MD5 e26dedcc434d2e4c54c9b2d4a06d8373)", "test_32x32.mat"],
        "eurosat": ["EuroSAT.zip (MD5 c8fa014336c82ac7804f0398fcb19387)"],
    }[source]
    assert all(name in message for name in names)
    folders = {
        "mnist": "/MNIST/raw", "fashion_mnist": "/FashionMNIST/raw", "eurosat": "/eurosat",
    }  # fmt: skip
    folder = folders.get(source, "")
    assert message.endswith(f"into {tmp_path}/sets{folder}")
    assert "Name or service not known" in message


@pytest.mark.parametrize("kept", [0, 10, 100])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_half_unpacked_file_is_not_believed(tmp_path, monkeypatch, name, kept):
    archive = put_mnist(tmp_path / "sets", monkeypatch, "MNIST")
    whole = read("mnist", tmp_path / "sets").images[:]
    torn = archive.with_name(name)
    torn.write_bytes(torn.read_bytes()[: min(kept, torn.stat().st_size - 1)])
    assert np.array_equal(read("mnist", tmp_path / "sets").images[:], whole)
    torn.write_bytes(torn.read_bytes()[:-1])
    torn.with_name(f"{name}.gz").unlink()
    with pytest.raises(UserError, match=rf"not whole in .*; put {name}\.gz"):
        read("mnist", tmp_path / "sets")


def test_labels_that_do_not_fit_the_images_are_refused(tmp_path, monkeypatch):
    archive = put_mnist(tmp_path / "sets", monkeypatch, "MNIST")
    read("mnist", tmp_path / "sets")
    labels = archive.with_name("train-labels-idx1-ubyte")
    labels.write_bytes(idx(digits_of(TRAIN + 1)))
    labels.with_name(f"{labels.name}.gz").unlink()
    with pytest.raises(UserError, match="do not fit together"):
        read("mnist", tmp_path / "sets")


def test_a_file_in_the_place_of_the_root_is_a_user_error(source, tmp_path):
    (tmp_path / "sets").touch()
    with pytest.raises(UserError, match=f"data.source {source}: "):
        read(source, tmp_path / "sets")


def test_every_set_of_the_params_is_known_and_the_digits_are_scikit_learns(tmp_path):
    assert params.TORCHVISION_SETS == tuple(torchvision_sets.CLASS_NAMES) == tuple(PUT)
    assert np.array_equal(read("digits", tmp_path / "x").images[:][:, 0], sources.digits()[0])
