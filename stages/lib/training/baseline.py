"""The float32 baseline that every method starts from, and the teacher of those that learn by
distillation: network, weights and training.
"""

import sys

from torch import nn

from stages.lib.core import custom_model
from stages.lib.core.errors import UserError
from stages.lib.core.params import NONE
from stages.lib.core.records import Epoch
from stages.lib.core.repository import person_path
from stages.lib.evaluation import inference, network_check, preprocessing
from stages.lib.evaluation.context import Context
from stages.lib.models import head, registry, weights, weights_file
from stages.lib.training import loop


def network(context: Context) -> nn.Module:
    """The baseline to train: with new weights, or with those of model.weights as far as they
    fit.
    """
    epochs = context.params.train_baseline.epochs
    return _network(context, "model", context.architecture, context.seed, epochs)


def teacher(context: Context) -> nn.Module:
    """The same for the teacher that the params describe; one serves all seeds."""
    epochs = context.params.teacher.epochs
    return _network(context, "teacher", context.teacher_architecture, 0, epochs)


def _network(
    context: Context, section: str, architecture: registry.Architecture, seed: int, epochs: int
) -> nn.Module:
    """A network to train.

    section: of the params, with its name and weights.
    seed: of new weights.
    epochs: of its training; with 0 all its weights must be there.
    """
    data, name = context.data, architecture["name"]
    model = registry.build_seeded(architecture, seed)
    notes = network_check.examine(model, data.image_shape, len(data.classes), name, section)
    if custom_model.is_own(name):  # of known networks they are known
        notes += [
            f"{name} reads {path}, which was not known before it was called with these data; the"
            " next `dvc repro` watches it, and runs again"
            for path in custom_model.unwatched(name)[:3]
            if path.as_posix() not in context.watched
        ]
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    if getattr(context.params, section).weights != NONE:
        take_weights(context, model, section, epochs)
    return context.place(model)


def take_weights(context: Context, model: nn.Module, section: str, epochs: int) -> None:
    """Loads the weights that a section of the params names into the network."""
    options, classes = getattr(context.params, section), len(context.data.classes)
    file, key = person_path(options.weights), getattr(options, "weights_key", "auto")
    kept = section == "model" and context.logits
    rows = head.tensors(model, classes, kept[1]) if kept else {}
    fitted = weights.fit(model, weights_file.read(file), classes, file, key, rows)
    if fitted.others:
        other = "; model.weights_key may name another" if section == "model" else "; it also has"
        print(
            f"note: {section}.weights: {file} holds several networks; taken is"
            f" {fitted.key or 'the outermost'}{other}: {', '.join(fitted.others)}",
            file=sys.stderr,
        )
    if fitted.fresh:
        fresh = f"{', '.join(fitted.fresh)}: {fitted.reason}"
        if epochs == 0:
            remedy = {
                "model": "set train_baseline.epochs to 1 or more, or model.class_index to a file"
                " that says which logit each class has",
                "teacher": "set teacher.epochs to 1 or more",
            }[section]
            raise UserError(
                f"{section}.weights: {file}: {fresh} (the data have {classes}), so the network has"
                f" to be trained; {remedy}"
            )
        print(f"{context.name}: {file}: {fresh}, starting fresh", file=sys.stderr)


def describe_untrained(context: Context, test_accuracy: float) -> None:
    """Says how good a network is that is taken as it is, and if other inputs suit it better."""
    params, data = context.params, context.data
    source = params.model.weights if params.model.weights != NONE else params.model.name
    print(
        f"train_baseline: {source} as it is: test accuracy {100 * test_accuracy:.2f} % of"
        f" {len(data.test.labels)} images",
        file=sys.stderr,
    )
    line = preprocessing.hint(
        context.baseline, data.validation, params.model.normalize, context.training_normalize
    )
    if line:
        print(f"note: {line}", file=sys.stderr)


def train(
    context: Context, model: nn.Module, section: str = "train_baseline"
) -> tuple[nn.Module, list[Epoch]]:
    """The trained network and its learning curve, a single point for 0 epochs.

    section: of the params, with epochs and learning_rate.
    """
    options, data = getattr(context.params, section), context.data
    if options.epochs and context.without_training_images:
        raise UserError(
            f"{section}.epochs: there are no training images; set it to 0, with model.weights or a"
            " network that brings its weights, or give training images"
        )
    if options.epochs == 0:
        accuracies = (inference.accuracy(model, part) for part in (data.train, data.validation))
        return model.eval(), [Epoch(0, 0.0, None, *accuracies)]
    return loop.fit(
        model,
        data,
        context.params.training,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        precision=context.precision,
        replayed=context.replayed,
        generator=context.generator("training"),
        label=context.name,
        states=context.states,
    )
