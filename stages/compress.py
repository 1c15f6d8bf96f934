"""Writes packed files of given sizes: pruned and quantized with training for that size, and by each
of the two alone.
"""

from stages.lib.arms.running import Arm, run_arms, trained
from stages.lib.core import paths


def sizes(context, name: str) -> None:
    from stages.lib.compression import packed, size_targets

    arm, results = size_targets.ARMS[name], context.results
    for size in size_targets.sizes(context, arm):
        asked = {"times_smaller": size.times_smaller, "weight_bits": size_targets.BITS}
        if size.network is None:
            results.refuse(arm.method, size.note, **asked)
            continue
        file = paths.network_name(arm.method, times_smaller=size.times_smaller) + paths.PACKED
        count = packed.save(context.directory / file, size.network.model, size.network.quantized)
        # Measure the network that is read back from the file.
        network, _ = packed.load(context.directory / file, network=context.params.model.name)
        results.record_file(
            context.place(network),
            arm.method,
            file,
            extra_epochs=size.epochs,
            bytes_on_disk=count,
            **asked,
        )


def baseline(context) -> None:
    from stages.lib.compression import size_targets

    network, epochs = size_targets.uncompressed(context)
    context.results.save(network, "baseline_taught", extra_epochs=epochs)


# The methods of the arms' networks.
METHODS = {
    "both": "packed", "pruned": "packed_pruned", "quantized": "packed_quantized",
    "baseline": "baseline_taught",
}  # fmt: skip


def arms(params) -> list[Arm]:
    found = []
    for name in params.compress.arms:
        targets = [1.0] if name == "baseline" else params.compress.times_smaller
        function, arguments = (baseline, ()) if name == "baseline" else (sizes, (name,))
        networks = trained(METHODS[name], targets, "times_smaller")
        found.append(Arm(name, function, arguments, networks))
    return found


if __name__ == "__main__":
    run_arms(arms)
