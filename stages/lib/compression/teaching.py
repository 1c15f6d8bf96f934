"""The teacher of compressed networks, and their training."""

import torch
from torch import nn

from stages.lib.evaluation import device
from stages.lib.evaluation.context import Context
from stages.lib.models import registry
from stages.lib.training import loop
from stages.lib.training.distillation import Distillation


def teacher(context: Context) -> nn.Module:
    """The baseline or, if compress.teacher_width is more than 1, a wider network of its kind,
    trained as the baseline was for compress.teacher_epochs. The same in every arm.
    """
    options, data, model = context.params.compress, context.data, context.params.model
    if options.teacher_width == 1:
        return context.baseline
    architecture = registry.architecture(
        model.name, options.teacher_width * model.width, data.image_shape[0], len(data.classes)
    )
    wide = device.place(registry.build_seeded(architecture, context.seed), context.device)
    trained, _ = loop.fit(
        wide,
        data,
        context.params.training,
        epochs=options.teacher_epochs,
        learning_rate=context.params.train_baseline.learning_rate,
        precision=context.precision,
        replayed=context.replayed,
        generator=context.generator("teacher"),
        label=f"{context.name}: teacher",
        states=context.states,
        validated=False,
    )
    return trained


def taught(
    context: Context,
    model: nn.Module,
    teacher: nn.Module,
    stream: torch.Generator,
    scheme: loop.TrainingScheme | None = None,
) -> nn.Module:
    """A copy of the network after compress.epochs of training with this teacher.

    stream: of batches, augmentation and dropout.
    """
    options = context.params.compress
    trained, _ = loop.fit(
        model,
        context.data,
        context.params.training,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        generator=stream,
        precision=context.precision,
        replayed=context.replayed,
        scheme=scheme,
        loss=Distillation(teacher, options.distillation, options.temperature),
        label=context.name,
        states=context.states,
        validated=False,
    )
    return trained
