"""Reads the source, splits it and leaves uint8 arrays for all later stages."""

from stages.lib import outputs, paths, prepared, sources, splits
from stages.lib.cli import run_stage
from stages.lib.prepared import Part


def main(params) -> None:
    data = params.data
    everything = sources.SOURCES[data.source]()
    indices = splits.stratified(
        everything.labels, data.validation_images, data.test_images, data.split_seed
    )
    parts = {
        name: Part(everything.images[index], everything.labels[index])
        for name, index in indices.items()
    }
    with outputs.whole_directory(paths.PREPARED) as directory:
        prepared.write(directory, parts, everything.classes)


if __name__ == "__main__":
    run_stage(main, reads=["data"])
