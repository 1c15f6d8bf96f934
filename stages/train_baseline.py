"""Trains the float32 baseline that every method starts from, or takes the user's weights."""

from stages.lib.arms.running import Arm, run_arms
from stages.lib.core import outputs, paths, records


def baseline(context) -> None:
    from stages.lib.evaluation import counting
    from stages.lib.training.baseline import describe_untrained, network, train

    params, data = context.params, context.data
    model, curve = train(context, network(context))
    context.baseline = model
    row = context.results.save(model, "baseline", paths.MODEL)
    points = (point._asdict() for point in curve)
    outputs.write_csv(context.directory / paths.LEARNING_CURVE, records.EPOCH, points)
    layers = counting.inventory(model, data.image_shape)
    outputs.write_csv(context.directory / paths.LAYERS, records.LAYER, layers)
    if params.train_baseline.epochs == 0:
        describe_untrained(context, row.test_accuracy)


def arms(params) -> list[Arm]:
    return [Arm("baseline", baseline)]


if __name__ == "__main__":
    run_arms(arms)
