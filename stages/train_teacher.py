"""Trains the network from which others learn by distillation, if it is not each seed's baseline."""

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import outputs, paths, records
from stages.lib.core.params import BASELINE


def teacher(context) -> None:
    from stages.lib.evaluation import counting, inference
    from stages.lib.models import checkpoints
    from stages.lib.training import baseline

    data = context.data
    model, curve = baseline.train(context, baseline.teacher(context), "teacher")
    checkpoints.save_model(model, context.directory / paths.MODEL)
    outputs.write_json(
        context.directory / paths.TEACHER,
        {
            "parameters": counting.parameters(model),
            "validation_accuracy": inference.accuracy(model, data.validation),
            "test_accuracy": inference.accuracy(model, data.test),
        },
    )
    points = (point._asdict() for point in curve)
    outputs.write_csv(context.directory / paths.LEARNING_CURVE, records.EPOCH, points)


def arms(params) -> list[Arm]:
    return [] if params.teacher.name == BASELINE else [Arm("teacher", teacher)]


if __name__ == "__main__":
    run_arms(arms)
