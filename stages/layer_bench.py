"""Times each layer of the network with fewer and fewer channels, for pruning by latency. Without
scope latency in `structured_prune.scopes`, the table is empty.
"""

from collections.abc import Iterable
from typing import Any

from stages.lib.core import errors, outputs, paths, prepared, records
from stages.lib.core.stage import Stage, run_stage


def measured(stage: Stage) -> Iterable[dict[str, Any]]:
    from stages.lib.engines import layer_latency
    from stages.lib.models import registry

    meta, model = prepared.read_meta(paths.PREPARED), stage.params.model
    channels, *image_size = meta["image_shape"]
    classes = len(meta["classes"])
    architecture = registry.architecture(model.name, model.width, channels, classes, image_size)
    network = registry.build_seeded(architecture, 0)
    multiple = stage.params.structured_prune.multiple_of
    return layer_latency.table(network, meta["image_shape"], multiple)


def main(stage: Stage) -> None:
    wanted = "latency" in stage.params.structured_prune.scopes
    lines, note = [], "not asked for"
    if wanted:
        try:
            lines = list(stage.progress(measured(stage), "pair of widths"))
        except Exception as error:  # noqa: BLE001 - any network may be named
            note = f"not timed ({errors.reason(error)})"
    outputs.write_csv(stage.directory / paths.ROWS, records.LAYER_LATENCY, lines)
    layers = len({line["layer"] for line in lines})
    stage.result = f"{layers} layers timed" if lines else note


if __name__ == "__main__":
    run_stage(main)
