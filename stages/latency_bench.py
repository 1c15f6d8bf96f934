"""Times every network of all seeds in every engine, in turns and in one process."""

from pathlib import Path

from stages.lib.core import engines, hardware, outputs, paths, records
from stages.lib.core.stage import run_stage
from stages.lib.engines import benchmark
from stages.lib.engines.benchmark import Subject
from stages.lib.evaluation.context import Context
from stages.lib.models import checkpoints

STAGES = ("train_baseline", "global_prune", "finetune", "structured_prune", "export_onnx")


def subjects(context: Context, seed: int) -> list[Subject]:
    """The networks of one seed in every engine; first the baseline in eager torch on the CPU."""
    options, normalize = context.params.latency_bench, context.data.test.normalize
    baseline, masked, finetuned, structured, exported = (
        context.rows(stage, seed) for stage in STAGES
    )
    name = context.params.model.name
    networks = [
        (
            benchmark.about(row),
            context.place(checkpoints.load_model(Path(row.model), network=name)),
            normalize,
        )
        for row in (*baseline, *masked[-1:], *finetuned[-1:], *structured)
    ]
    dtypes = dict.fromkeys(["float32", *context.params.dtype_bench.dtypes])
    timed: list[Subject] = []
    for device in dict.fromkeys((benchmark.CPU, context.device)):
        timed += benchmark.in_torch(*networks[0], [device], [*dtypes])
        timed += [benchmark.of_torch(*network, device) for network in networks[1:]]
    files = [row for row in exported if row.model]
    return timed + benchmark.of_files(files, engines.read(paths.ENGINES), options.threads)


def main(context: Context) -> None:
    options = context.params.latency_bench
    seeds = context.params.seeds if options.batch_sizes else []
    timed = [subject for seed in seeds for subject in subjects(context, seed)]
    lines = benchmark.measure(
        timed, context.data.test.images, options.batch_sizes,
        threads=options.threads, seconds=options.seconds,
        isa=hardware.kernel_isa(hardware.read(paths.HARDWARE)["isa"]),
    )  # fmt: skip
    context.result = f"{len(timed)} networks timed"
    lines = context.progress(lines, "latency", len(timed) * len(options.batch_sizes))
    outputs.write_csv(context.directory / paths.ROWS, records.LATENCY, lines)


if __name__ == "__main__":
    run_stage(main, Context)
