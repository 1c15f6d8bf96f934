"""Trains the network whose probabilities teach others, if it is not the baseline."""

from stages.lib.core import outputs, paths, records
from stages.lib.core.params import BASELINE
from stages.lib.core.stage import Stage, run_stage


def train(stage: Stage) -> tuple[float, list[records.Epoch]]:
    """Trains and saves the teacher: its test accuracy and its learning curve."""
    # Here, because importing torch takes two seconds, which a run without a teacher need not wait.
    from stages.lib.evaluation import device, inference
    from stages.lib.evaluation.context import Context
    from stages.lib.models import checkpoints, registry
    from stages.lib.training import loop

    context = Context(**vars(stage))
    options, data = context.params.teacher, context.data
    model, curve = loop.fit(
        device.place(registry.build_seeded(context.teacher_architecture, 0), context.device),
        data,
        context.params.training,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        precision=context.precision,
        replayed=context.device.type == "cuda",
        generator=context.generator("training"),
        label=context.name,
    )
    checkpoints.save_model(model, stage.directory / paths.MODEL)
    return inference.accuracy(model, data.test), curve


def main(stage: Stage) -> None:
    accuracy, curve = None, []
    if stage.params.teacher.name != BASELINE:
        accuracy, curve = train(stage)
    points = (point._asdict() for point in curve)
    outputs.write_csv(stage.directory / paths.LEARNING_CURVE, records.EPOCH, points)
    outputs.write_json(stage.directory / paths.TEACHER, {"test_accuracy": accuracy})


if __name__ == "__main__":
    run_stage(main)
