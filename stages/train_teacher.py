"""Trains the network from which others learn by distillation, if it is not each seed's baseline."""

from pathlib import Path

from stages.lib.arms.running import Arm, run_arms, trained
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
    networks = trained("teacher", [0.0]) if params.teacher.epochs else ()
    return [] if params.teacher.name == BASELINE else [Arm("teacher", teacher, (), networks)]


def told(folder: Path) -> str:
    if not (folder / paths.TEACHER).exists():
        return ""
    about = outputs.read_json(folder / paths.TEACHER, records.REMEDY)
    return f"{100 * about['validation_accuracy']:.1f} % validation"


if __name__ == "__main__":
    run_arms(arms, told=told)
