"""Reads the images, splits them and writes uint8 arrays for all later stages."""

import sys

import numpy as np

from stages.lib.core import paths, prepared
from stages.lib.core.errors import UserError
from stages.lib.core.prepared import Part
from stages.lib.core.stage import Stage, run_stage
from stages.lib.data import duplicates, fingerprint, listing, sources, splits


def main(stage: Stage) -> None:
    data = stage.params.data
    listing.must_be_apart(data, paths.PREPARED)
    before = fingerprint.of_images(data)
    staged = stage.directory / paths.STAGED_IMAGES
    found = sources.read(data, staged)
    indices = splits.parts(found.labels, found.parts, data, found.classes)
    parts = {
        name: Part(found.images.take(index), found.labels[index]) for name, index in indices.items()
    }
    none_to_train = np.array_equal(indices["train"], indices["validation"])
    meta = prepared.write(
        stage.directory, parts, found.classes, data.source, found.unreadable, none_to_train
    )
    notes = [prepared.class_counts(meta), *found.notes]
    if none_to_train:
        notes.append(
            "there are no training images: what trains (fine-tuning, packed files) is left out; the"
            " report says so"
        )
        del parts["train"]
    for line in (*notes, *duplicates.notes(parts)):
        print(f"note: {line}", file=sys.stderr)
    stage.result = prepared.summary(meta)
    staged.unlink()
    if fingerprint.of_images(data) != before:
        raise UserError(f"data.root: {data.root} changed while it was read; run `dvc repro` again")


if __name__ == "__main__":
    run_stage(main)
