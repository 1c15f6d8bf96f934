"""The normalization constants of published weights, known without importing torch."""

from collections.abc import Sequence

TRAINING = "training"
# Mean and standard deviation per channel (red, green, blue) of images scaled to 0…1.
FIXED = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "none": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}


def fixed(name: str, channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of one of FIXED. Grey images get the mean over the
    three colours. KeyError for another name.
    """
    mean, std = FIXED[name]
    if channels != len(mean):
        mean, std = [sum(mean) / 3] * channels, [sum(std) / 3] * channels
    return mean, std


def of(name: str, mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation for a `model.normalize`.

    mean, std: of the training images, one number per channel, which TRAINING stands for.
    """
    return ([*mean], [*std]) if name == TRAINING else fixed(name, len(mean))
