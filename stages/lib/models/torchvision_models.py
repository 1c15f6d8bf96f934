"""torchvision's classification models, fitted to the data: head, channels and image size."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from stages.lib.core.errors import UserError

# Auxiliary heads are for training only, and change what a forward pass returns.
WITHOUT_AUXILIARY = {"aux_logits": False, "transform_input": False, "init_weights": True}


def _options(name: str, image_size: Sequence[int]) -> dict[str, Any]:
    """The arguments of a network's constructor other than the number of classes."""
    if name in ("googlenet", "inception_v3"):
        return WITHOUT_AUXILIARY
    if not name.startswith(("vit_", "maxvit_")):
        return {}
    if len(set(image_size)) > 1:
        raise UserError(f"model.name: {name} takes square images only; set data.image_size")
    if name.startswith("maxvit_"):
        return {"input_size": tuple(image_size)}
    patch = int(name.rpartition("_")[2])
    if image_size[0] % patch:
        raise UserError(
            f"data.image_size: {image_size[0]} is not a multiple of {patch}, the patch of {name}"
        )
    return {"image_size": image_size[0]}


def first_convolution(model: nn.Module) -> str | None:
    """The name of the convolution that reads the image."""
    convolutions = (n for n, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return next(convolutions, None)


def _take_channels(model: nn.Module, in_channels: int) -> None:
    name = first_convolution(model)
    old = model.get_submodule(name)
    new = nn.Conv2d(
        in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation,
        bias=old.bias is not None,
    )  # fmt: skip
    model.set_submodule(name, new)


def build(name: str, in_channels: int, image_size: Sequence[int], classes: int) -> nn.Module:
    """torchvision's model of this name with new weights.

    in_channels: other than 3 replaces the first convolution.
    image_size: (height, width); only vision transformers depend on it.
    classes: the number of logits.

    Raises UserError if the network cannot be built for this image size.
    """
    from torchvision import models

    try:
        options = _options(name, image_size)
        model = models.get_model(name, weights=None, num_classes=classes, **options)
    except (ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model.name: {name} cannot be built for images of {image_size[0]} pixels ({reason});"
            " set data.image_size"
        ) from None
    if in_channels != 3:
        _take_channels(model, in_channels)
    return model
