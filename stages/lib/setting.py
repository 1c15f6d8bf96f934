"""What every stage that touches a network starts with: the device, the data, the baseline."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from stages.lib import checkpoints, counting, device, evaluation, images, models, prepared
from stages.lib.evaluation import Data
from stages.lib.measuring import Ruler
from stages.lib.params import Compute, Model


class Setting(NamedTuple):
    """Device, dtype to train in, data on the device, and the architecture that the params describe
    for this data.
    """

    device: torch.device
    precision: torch.dtype
    data: Data
    architecture: models.Architecture


def load(compute: Compute, model: Model, prepared_directory: Path) -> Setting:
    """Configures torch and loads the prepared data onto the device."""
    where = device.configure(compute.device, compute.threads)
    dataset = prepared.load(prepared_directory)
    channels, *image_size = dataset.image_shape
    normalize = (
        None
        if model.normalize == "training"
        else images.fixed_normalize(model.normalize, channels, where)
    )
    return Setting(
        where,
        device.training_dtype(compute.precision, where),
        evaluation.on_device(dataset, where, normalize),
        models.architecture(model.name, model.width, channels, len(dataset.classes), image_size),
    )


def load_network(setting: Setting, path: Path) -> nn.Module:
    """A network of the params' architecture from its file, on the device."""
    return device.place(checkpoints.load_model(path, setting.architecture), setting.device)


def load_baseline(setting: Setting, path: Path, seed: int) -> tuple[nn.Module, Ruler]:
    """The trained baseline on the device, and the ruler that measures against it."""
    baseline = load_network(setting, path)
    return baseline, Ruler(seed, setting.data, counting.prunable_weights(baseline))
