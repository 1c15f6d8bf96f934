"""Describes the machine, the optional engines, and the user's images, network and weights. Always
runs, without torch. Its files change only when these do, and then the stages that depend on them
run again.
"""

import sys

from stages.lib.core import engines, hardware, outputs, paths, requirements
from stages.lib.core.stage import Stage, run_stage
from stages.lib.data import fingerprint, listing


def main(stage: Stage) -> None:
    data, model, teacher = stage.params.data, stage.params.model, stage.params.teacher
    # Also checked here, because DVC removes the outputs of prepare_data before it runs.
    listing.must_be_apart(data, paths.PREPARED)
    machine = hardware.describe()
    for output, description in (
        (paths.HARDWARE, machine),
        (paths.ENGINES, engines.installed()),
        (paths.INPUT_DATA, fingerprint.of_images(data)),
        (paths.INPUT_MODEL, fingerprint.of_network("model", model, data, paths.PREPARED)),
        (paths.INPUT_TEACHER, fingerprint.of_network("teacher", teacher, data, paths.PREPARED)),
    ):
        outputs.write_json(stage.place(output), description)
    outputs.remove_other_seeds(paths.ARTIFACTS, stage.params.seeds)
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    stage.result = f"{machine['cpu']}, {machine['cores']} cores, {gpus}"
    difference = requirements.note()
    if difference:
        print(f"note: {difference}", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
