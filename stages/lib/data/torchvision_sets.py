"""Public sets, which torchvision downloads once and checks by their MD5 sums."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.lib.core.errors import UserError

CLASS_NAMES = {
    "mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10",
    "cifar100": "CIFAR100", "svhn": "SVHN", "eurosat": "EuroSAT",
}  # fmt: skip


class FolderSet(NamedTuple):
    """A set of image files in class folders, and what torchvision does not say about it.

    archive, folder: below the root. files: how many images the folder has when it is whole.
    """

    archive: str
    md5: str
    folder: str
    files: int


FOLDER_SETS = {
    "eurosat": FolderSet(
        "eurosat/EuroSAT.zip", "c8fa014336c82ac7804f0398fcb19387", "eurosat/2750", 27_000
    )
}
_SECONDS_OF_SILENCE = 60


def _dataset(source: str) -> type:
    from torchvision import datasets  # takes seconds

    # A server that does not answer is an error; torchvision would wait for ever.
    socket.setdefaulttimeout(_SECONDS_OF_SILENCE)
    return getattr(datasets, CLASS_NAMES[source])


def _files(source: str) -> list[tuple[str, str]]:
    """(path below the root, MD5 sum) of the files that a user can put there by hand."""
    if source in FOLDER_SETS:
        return [(FOLDER_SETS[source].archive, FOLDER_SETS[source].md5)]
    dataset = _dataset(source)
    if hasattr(dataset, "resources"):
        return [(f"{dataset.__name__}/raw/{name}", md5) for name, md5 in dataset.resources]
    if hasattr(dataset, "split_list"):
        return [tuple(dataset.split_list[part][1:]) for part in ("train", "test")]
    return [(dataset.filename, dataset.tgz_md5)]


def _remedy(source: str, root: Path) -> str:
    from torchvision.datasets.utils import check_integrity

    wanted: dict[str, list[str]] = {}
    for path, md5 in _files(source):
        if check_integrity(root / path, md5):
            continue
        torn = ", the one there is torn or another file" if (root / path).exists() else ""
        place, _, name = path.rpartition("/")
        wanted.setdefault(place, []).append(f"{name} (MD5 {md5}{torn})")
    return "; ".join(
        f"put {', '.join(names)} into {os.path.abspath(root / place)}"  # noqa: PTH100  keeps links
        for place, names in wanted.items()
    )


def _unpack_anew(dataset: type, root: Path) -> None:
    """Removes unpacked files if all archives are there, so that torchvision unpacks them again. It
    would accept a file that a kill cut short.
    """
    from torchvision.datasets.utils import check_integrity

    folder = root / dataset.__name__ / "raw"
    archives = {folder / name: md5 for name, md5 in getattr(dataset, "resources", ())}
    if all(check_integrity(archive, md5) for archive, md5 in archives.items()):
        for archive in archives:
            archive.with_suffix("").unlink(missing_ok=True)


@contextmanager
def _errors_naming(source: str, root: Path) -> Iterator[None]:
    """Turns any error into a UserError with the missing files, their MD5 sums and where to put
    them.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  a damaged file makes torchvision raise about anything
        # Of several mirrors the last one's answer.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        remedy = _remedy(source, root) or "make it readable, or delete it and run again"
        raise UserError(
            f"data.source {source}: not whole in {root}, and not to be downloaded or read"
            f" ({reason}); {remedy}"
        ) from None


def folder(source: str, root: Path) -> Path:
    """The folder of one of FOLDER_SETS, with a folder of image files for each class, downloaded
    into `root` if it is not there. Errors are those of `load`.
    """
    known = FOLDER_SETS[source]
    place = root / known.folder

    def is_whole() -> bool:
        return sum(1 for _ in place.glob("*/*")) == known.files

    with _errors_naming(source, root):
        from torchvision.datasets.utils import check_integrity

        # torchvision would accept a folder that a kill left half unpacked.
        if not is_whole() and check_integrity(root / known.archive, known.md5):
            shutil.rmtree(place, ignore_errors=True)
        _dataset(source)(root, download=True)
        if not is_whole():
            raise ValueError(f"{place} has not {known.files:,} files")
    return place


def load(source: str, root: Path, train: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The training or the test part of a public set of arrays, downloaded into `root` if it is not
    there.

    Returns images, uint8 [n, height, width] or [n, height, width, 3]; labels, int64 [n]; class
    names. Without a network, raises UserError with the missing files, their MD5 sums and where to
    put them.
    """
    dataset = _dataset(source)
    part = {"split": "train" if train else "test"} if source == "svhn" else {"train": train}
    with _errors_naming(source, root):
        if train:  # which comes first
            _unpack_anew(dataset, root)
        found = dataset(root, download=True, **part)
        images = np.asarray(found.data)
        labels = np.asarray(found.labels if source == "svhn" else found.targets, dtype=np.int64)
        own_names = source not in ("mnist", "svhn")
        classes = list(found.classes) if own_names else [str(digit) for digit in range(10)]
        if labels.shape != images.shape[:1] or not set(labels) <= set(range(len(classes))):
            raise ValueError("images and labels do not fit together")
    return images.transpose(0, 2, 3, 1) if source == "svhn" else images, labels, classes
