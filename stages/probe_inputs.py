"""Describes the person's own inputs in files that change only when they do. Needs no torch."""

from stages.lib import fingerprint, listing, outputs, paths
from stages.lib.cli import run_stage


def main(params) -> None:
    # Checked here as well: before prepare_data runs, dvc removes what it wrote.
    listing.must_be_apart(params.data, paths.PREPARED)
    outputs.write_json_if_new(paths.INPUT_DATA, fingerprint.of_images(params.data))
    outputs.write_json_if_new(paths.INPUT_MODEL, fingerprint.of_network(params.model))


if __name__ == "__main__":
    run_stage(main, reads=["data", "model"])
