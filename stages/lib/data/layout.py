"""Which folders of a folder of images are parts (train, validation, test), and which classes."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.lib.core import paths
from stages.lib.core.errors import UserError, printable
from stages.lib.core.paths import PARTS
from stages.lib.data import listing

UNLABELLED = "unlabelled"
# The words, in the name of a folder, of a CSV file or in a column, that mean a part of the set.
_WORDS = {
    word: part
    for part, words in {
        "train": "train training trainset",
        "validation": "val valid validation valset validate dev",
        "test": "test testing testset",
        UNLABELLED: "pred predict prediction predictions unlabeled unlabelled",
    }.items()
    for word in words.split()
}
# Words that say nothing about what a folder holds.
_IDLE = {"set", "data", "dataset", "image", "images", "img", "imgs", "photos", "pictures", "split"}
# With a number behind them, they mean a piece of a set.
_PIECES = {"part", "fold", "split", "subset", "chunk", "shard", "batch"}


class ClassFolder(NamedTuple):
    """One folder of images. place: its path below the root. part: None if parts are to be drawn."""

    place: str
    name: str
    part: str | None


class Layout(NamedTuple):
    """Where the images of a folder are.

    folders: those of the classes; empty if no labels can be told from the folders.
    loose: other files, by their paths below the root.
    notes: lines for the user.
    found: the folders that were looked at, for an error.
    """

    folders: list[ClassFolder]
    loose: list[str]
    notes: list[str]
    found: list[str]


def some(names: Iterable[str]) -> str:
    """Names for a line of text: the first few, and how many more."""
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(printable, names[:5])) + more


def _tokens(name: str) -> list[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return re.findall(r"[^\W\d_]+|\d+", spaced.lower())


def part_of(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The part that a name means, or None, and the words that are left: `seg_train` gives
    ("train", ("seg",)).
    """
    tokens = _tokens(name)
    parts = [_WORDS[token] for token in tokens if token in _WORDS]
    rest = tuple(token for token in tokens if token not in _WORDS and token not in _IDLE)
    return (parts[0], rest) if len(parts) == 1 else (None, rest)


def looks_like_a_part(name: str) -> bool:
    """Whether a folder of this name could be a part of the set rather than a class."""
    part, rest = part_of(name)
    tokens = _tokens(name)
    piece = len(tokens) > 1 and tokens[-1].isdigit() and tokens[-2] in _PIECES
    return (part is not None and not rest) or piece


def _entries(root: Path, place: str) -> tuple[list[str], list[str]]:
    """The names of the folders and of all other entries in a folder below the root."""
    folders, others = [], []
    folder = root / place
    for entry in listing.visible(folder):
        (folders if listing.is_folder(entry) else others).append(entry.name)
    for name in others:
        if (folder / name).is_symlink() and not (folder / name).is_file():
            raise UserError(
                f"data.root: {printable(str(folder / name))} is a link that leads nowhere or to"
                " itself; remove or mend it"
            )
    return folders, others


def _unwrapped(root: Path, place: str) -> tuple[str, list[str], list[str]]:
    """The place of a folder, or of the only folder in it if that has folders inside; what
    `_entries` gives for it.
    """
    folders, others = _entries(root, place)
    if len(folders) == 1:
        inner = f"{place}{folders[0]}/"
        inside, beside = _entries(root, inner)
        if inside or any(name.lower().endswith(paths.LABEL_TABLES) for name in beside):
            return inner, inside, [*others, *beside]
    return place, folders, others


def _of_parts(folders: list[str]) -> dict[str, str]:
    """Each folder that means a part, and the part, if there are two parts of one set: `train` and
    `test`, or `seg_train` and `seg_test`. Empty if there are not.
    """
    named = {name: part_of(name) for name in folders}
    for rest in dict.fromkeys(rest for part, rest in named.values() if part):
        parts = {name: part for name, (part, own) in named.items() if part and own == rest}
        if len(set(parts.values()) - {UNLABELLED}) > 1:
            return parts
    return {}


def _read_parts(
    root: Path, place: str, parts: dict[str, str], notes: list[str]
) -> tuple[list[ClassFolder], list[str]]:
    """The class folders of all parts, and the files beside them."""
    found, loose = [], []
    for part in PARTS:
        for name in (name for name, own in parts.items() if own == part):
            inner, classes, beside = _unwrapped(root, f"{place}{name}/")
            loose += [f"{inner}{file}" for file in beside if classes]
            if not classes and part != PARTS[0]:
                notes.append(
                    f"data.root: {printable(f'{place}{name}')}/ has no class folders, hence no"
                    " labels; it is not read"
                )
                continue
            if len(classes) < 2:
                raise UserError(
                    f"data.root: {root / place / name} has too few class folders"
                    f" ({some(classes) or 'none'}); allowed: at least two, each with its images"
                    " inside"
                )
            found += [ClassFolder(f"{inner}{each}", each, part) for each in classes]
    for name in (name for name, part in parts.items() if part == UNLABELLED):
        notes.append(f"data.root: {printable(name)}/ is not read, as it has no labels")
    return found, loose


def find(root: Path) -> Layout:
    """Looks at the folders below the root; opens no file. UserError for a refused layout."""
    place, folders, loose = _unwrapped(root, "")
    notes = [f"data.root: read from the folder {printable(place)} in it"] if place else []
    inside = {name for name in folders if _entries(root, f"{place}{name}")[0]}
    parts = _of_parts(folders)
    labelled = {name: part for name, part in parts.items() if part != UNLABELLED}
    others = [name for name in folders if name not in parts]
    # A class may be called train (car, bus, train); then it has no folders inside.
    lone = [name for name in folders if name in inside and part_of(name) in _LONE]
    if (labelled.keys() & inside and others) or (not parts and lone):
        raise UserError(
            f"data.root: {root / place} holds {some(folders)}, {some(labelled or lone)} with"
            " folders inside; allowed: train/, validation/ and test/ alone, or class folders alone"
        )
    if labelled.keys() & inside:
        twice = [part for part, count in Counter(labelled.values()).items() if count > 1]
        if twice:
            raise UserError(
                f"data.root: {root / place} holds {some(labelled)}: two folders for {twice[0]};"
                " allowed: one for each of train, validation and test"
            )
        found, beside = _read_parts(root, place, labelled | parts, notes)
        return Layout(found, [*loose, *beside], notes, folders)
    suspicious = [name for name in folders if name in parts or looks_like_a_part(name)]
    if len(suspicious) == len(folders) > 0:
        if set(folders) & inside:
            raise UserError(
                f"data.root: {root / place} holds {some(folders)}, which look like pieces of one"
                " set, not like classes; merge their class folders, or call them train/,"
                " validation/ and test/"
            )
        return Layout([], loose, notes, folders)
    notes += [
        f"data.root: {printable(name)}/ looks like a part of the set; it has no folders inside, so"
        " it is read as a class"
        for name in suspicious
    ]
    classes = [ClassFolder(f"{place}{name}", name, None) for name in folders]
    return Layout(classes, loose, notes, folders)


_LONE = {(part, ()) for part in PARTS}
