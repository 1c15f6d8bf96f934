"""Writes packed files of given sizes: pruned and quantized with training for that size, and by each
of the two alone.
"""

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import outputs, paths, records


def sizes(context, name: str) -> None:
    from stages.lib.compression import packed, size_targets

    arm, results, targets = size_targets.ARMS[name], context.results, []
    if not context.may_train(arm.method, "times_smaller", context.params.compress.times_smaller):
        return
    for size in size_targets.sizes(context, arm):
        targets.append((context.seed, arm.method, size.times_smaller, size.asked_bytes, size.note))
        if size.network is None:
            continue
        file = paths.network_name(arm.method, times_smaller=size.times_smaller) + paths.PACKED
        count = packed.save(context.directory / file, size.network.model, size.network.quantized)
        # Measure the network that is read back from the file.
        network, _ = packed.load(context.directory / file, network=context.params.model.name)
        results.record_file(
            context.place(network),
            arm.method,
            file,
            times_smaller=size.times_smaller,
            weight_bits=size_targets.BITS,
            extra_epochs=size.epochs,
            bytes_on_disk=count,
        )
    lines = (dict(zip(records.SIZE_TARGET, line, strict=True)) for line in targets)
    outputs.write_csv(context.directory / paths.SIZE_TARGETS, records.SIZE_TARGET, lines)


def baseline(context) -> None:
    from stages.lib.compression import size_targets

    if not context.may_train("baseline_taught", "times_smaller", [1.0]):
        return
    network, epochs = size_targets.uncompressed(context)
    context.results.save(network, "baseline_taught", extra_epochs=epochs)


def arms(params) -> list[Arm]:
    return [
        Arm(name, baseline) if name == "baseline" else Arm(name, sizes, (name,))
        for name in params.compress.arms
    ]


if __name__ == "__main__":
    run_arms(arms, {paths.SIZE_TARGETS: records.SIZE_TARGET})
