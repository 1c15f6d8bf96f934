"""Reads the source, splits it and leaves uint8 arrays for all later stages."""

import sys

from stages.lib import listing, outputs, paths, prepared, sources, splits
from stages.lib.cli import run_stage
from stages.lib.prepared import Part
from stages.lib.rows import Selection


def main(params) -> None:
    data = params.data
    listing.must_be_apart(data, paths.PREPARED)
    with outputs.whole_directory(paths.PREPARED) as directory:
        staged = directory / paths.STAGED_IMAGES
        found = sources.read(data, staged)
        for line in found.notes:
            print(f"note: {line}", file=sys.stderr)
        indices = splits.parts(found.labels, found.own_test, data, found.classes)
        parts = {
            name: Part(Selection(found.images, index), found.labels[index])
            for name, index in indices.items()
        }
        prepared.write(directory, parts, found.classes, data.source, found.unreadable)
        staged.unlink()


if __name__ == "__main__":
    run_stage(main, reads=["data"])
