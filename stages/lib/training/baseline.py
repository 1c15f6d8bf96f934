"""The float32 baseline that every method starts from: its network, weights and training."""

import sys
from pathlib import Path

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
    """The network to train: with new weights, or with those of model.weights as far as they fit."""
    file, data = context.params.model.weights, context.data
    model = registry.build_seeded(context.architecture, context.seed)
    name = context.params.model.name
    notes = network_check.examine(model, data.image_shape, len(data.classes), name)
    if custom_model.is_own(name):  # of known networks they are known
        notes += [
            f"{name} reads {path}, which was not known before it was called with these data; the"
            " next `dvc repro` watches it, and runs again"
            for path in custom_model.unwatched(name)[:3]
            if path.as_posix() not in context.watched
        ]
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    if file != NONE:
        take_weights(context, model, person_path(file))
    return model


def take_weights(context: Context, model: nn.Module, file: Path) -> None:
    """Loads the user's weights into the network."""
    classes, key = len(context.data.classes), context.params.model.weights_key
    rows = head.tensors(model, classes, context.logits[1]) if context.logits else {}
    fitted = weights.fit(model, weights_file.read(file), classes, file, key, rows)
    if fitted.others:
        print(
            f"note: model.weights: {file} holds several networks; taken is"
            f" {fitted.key or 'the outermost'}; model.weights_key may name another:"
            f" {', '.join(fitted.others)}",
            file=sys.stderr,
        )
    if fitted.fresh:
        fresh = f"{', '.join(fitted.fresh)}: {fitted.reason}"
        if context.params.train_baseline.epochs == 0:
            raise UserError(
                f"model.weights: {file}: {fresh} (the data have {classes}), so the network has to"
                " be trained; set train_baseline.epochs to 1 or more, or model.class_index to a"
                " file that says which logit each class has"
            )
        print(f"train_baseline: {file}: {fresh}, starting fresh", file=sys.stderr)


def describe_untrained(context: Context, test_accuracy: float) -> None:
    """Says how good a network is that is taken as it is, and if other inputs suit it better."""
    params, data = context.params, context.data
    source = params.model.weights if params.model.weights != NONE else params.model.name
    print(
        f"train_baseline: {source} as it is: test accuracy {test_accuracy:.2%} of"
        f" {len(data.test.labels)} images",
        file=sys.stderr,
    )
    line = preprocessing.hint(
        context.baseline, data.validation, params.model.normalize, context.training_normalize
    )
    if line:
        print(f"note: {line}", file=sys.stderr)


def train(context: Context, model: nn.Module) -> tuple[nn.Module, list[Epoch]]:
    """The trained network and its learning curve, a single point for 0 epochs."""
    options, data = context.params.train_baseline, context.data
    if options.epochs and context.without_training_images:
        raise UserError(
            "train_baseline.epochs: there are no training images; set it to 0, with model.weights"
            " or a network that brings its weights, or give training images"
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
