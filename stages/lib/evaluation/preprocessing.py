"""Whether a pretrained network is better with inputs made otherwise: a hint, never a choice."""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from stages.lib.core import normalization
from stages.lib.evaluation.images import Normalize, fixed_normalize
from stages.lib.evaluation.samples import Samples, batch_size
from stages.lib.models.modes import evaluating, input_like

# Of the published networks; and the share of a side that their evaluation keeps.
USUAL_SIZE, CROP = 224, 0.875
SMALLEST, LARGEST = 16, 512
MOST_IMAGES = 200
# A gain counts from this many standard errors on, as several alternatives are tried.
Z = 3

Change = Callable[[torch.Tensor], torch.Tensor]


def _resized(size: int) -> Change:
    def change(images: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(images, (size, size), mode="bicubic", antialias=True)

    return change


def _cropped(images: torch.Tensor) -> torch.Tensor:
    sides = images.shape[2:]
    kept = [round(CROP * side) for side in sides]
    top, left = ((side - own) // 2 for side, own in zip(sides, kept, strict=True))
    centre = images[:, :, top : top + kept[0], left : left + kept[1]]
    return functional.interpolate(centre, tuple(sides), mode="bicubic", antialias=True)


def _alternatives(
    samples: Samples, channels: int, present: str, trained: Normalize
) -> Iterator[tuple[str, Normalize, Change, int]]:
    """(what params.yaml would say, normalization, change of the images, side)."""
    device, side = samples.normalize.scale.device, max(samples.images.shape[2:])
    known = {name: fixed_normalize(name, channels, device) for name in normalization.FIXED}
    for name, normalize in (known | {"training": trained}).items():
        if name != present:
            yield f"model.normalize: {name}", normalize, lambda images: images, side
    for size in sorted({side // 2, 2 * side, USUAL_SIZE} - {side}):
        if SMALLEST <= size <= LARGEST:
            yield f"data.image_size: {size}", samples.normalize, _resized(size), size
    yield (
        f"cutting the images to {100 * CROP:.1f} % of their sides",
        samples.normalize,
        _cropped,
        side,
    )


@torch.no_grad()
def _correct(
    model: nn.Module, samples: Samples, normalize: Normalize, change: Change, side: int
) -> torch.Tensor:
    """Which of the first MOST_IMAGES images are right: bool [n]."""
    like = input_like(model)
    step = batch_size(side**2, like.device)
    with evaluating(model):
        found = [
            model(change(normalize(images)).to(like)).argmax(1).cpu()
            for images in samples.images[:MOST_IMAGES].split(step)
        ]
    return torch.cat(found) == samples.labels[:MOST_IMAGES].cpu()


def hint(
    model: nn.Module, samples: Samples, present: str, trained: Normalize, seed: int = 0
) -> str | None:
    """A line about inputs with which more validation images are right, by more than chance
    (McNemar's test on the images that only one of the two has right); None if there are none.

    samples: the validation images.
    present: model.normalize. trained: the normalization that "training" stands for.
    seed: decides which images are taken of many.
    """
    if len(samples.images) > MOST_IMAGES:
        order = torch.randperm(len(samples.images), generator=torch.Generator().manual_seed(seed))[
            :MOST_IMAGES
        ].to(samples.images.device)
        samples = Samples(samples.images[order], samples.labels[order], samples.normalize)
    side = max(samples.images.shape[2:])
    now = _correct(model, samples, samples.normalize, lambda images: images, side)
    best, gain = None, 0.0
    channels = samples.images.shape[1]
    for name, normalize, change, size in _alternatives(samples, channels, present, trained):
        try:
            then = _correct(model, samples, normalize, change, size)
        except (RuntimeError, ValueError, AssertionError):  # not every network takes every size
            continue
        won, lost = int((then & ~now).sum()), int((now & ~then).sum())
        if won - lost > max(gain, Z * (won + lost) ** 0.5):
            best, gain = (name, float(then.double().mean())), won - lost
    if best is None:
        return None
    return (
        f"on {len(now)} validation images, {best[0]} gives {100 * best[1]:.1f} % instead of"
        f" {100 * float(now.double().mean()):.1f} %: the network may have been trained with it"
    )
