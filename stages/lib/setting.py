"""What every stage that touches a network starts with: the device, the data, the baseline."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from stages.lib import checkpoints, counting, device, evaluation, models, prepared
from stages.lib.evaluation import Data
from stages.lib.measuring import Ruler
from stages.lib.params import Compute, Model


class Setting(NamedTuple):
    """Device, data on it, and the architecture that the params describe for this data."""

    device: torch.device
    data: Data
    architecture: models.Architecture


def load(compute: Compute, model: Model, prepared_directory: Path) -> Setting:
    """Configures torch and loads the prepared data onto the device."""
    where = device.configure(compute.device, compute.threads)
    data = evaluation.on_device(prepared.load(prepared_directory), where)
    architecture = models.architecture(
        model.name, model.width, data.image_shape[0], len(data.classes)
    )
    return Setting(where, data, architecture)


def load_baseline(setting: Setting, path: Path, seed: int) -> tuple[nn.Module, Ruler]:
    """The trained baseline on the device, and the ruler that measures against it."""
    baseline = checkpoints.load_model(path, setting.architecture).to(setting.device)
    return baseline, Ruler(seed, setting.data, counting.prunable_weights(baseline))
