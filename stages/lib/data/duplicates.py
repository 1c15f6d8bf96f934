"""Finds images with equal pixels: in two parts of a set, or with two labels."""

import hashlib
import itertools
from collections.abc import Mapping

import numpy as np

from stages.lib.core import prepared
from stages.lib.core.prepared import Part


def _hashes(part: Part) -> np.ndarray:
    """64 bits of the BLAKE2 hash of each image: uint64 [n]."""
    found = [
        hashlib.blake2b(image, digest_size=8).digest()
        for block in prepared.blocks(part.images)
        for image in block
    ]
    return np.frombuffer(b"".join(found), np.uint64)


def notes(parts: Mapping[str, Part]) -> list[str]:
    """A line for each pair of parts that share images, and one if images have two labels."""
    hashes = {name: _hashes(part) for name, part in parts.items()}
    found = []
    for first, second in itertools.combinations(parts, 2):
        shared = int(np.isin(hashes[second], hashes[first]).sum())
        if shared:
            found.append(
                f"{shared} of {len(hashes[second])} {second} images have the same pixels as images"
                f" in {first}: accuracy on them says nothing about new images"
            )
    _, image = np.unique(np.concatenate(list(hashes.values())), return_inverse=True)
    labels = np.concatenate([part.labels for part in parts.values()])
    least = np.full(image.max() + 1, labels.max())
    most = np.zeros_like(least)
    np.minimum.at(least, image, labels)
    np.maximum.at(most, image, labels)
    torn = int((least < most)[image].sum())
    if torn:
        found.append(f"{torn} images have the same pixels as an image of another class")
    return found
