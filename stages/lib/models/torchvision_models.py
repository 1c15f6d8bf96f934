"""torchvision's classification models, fitted to the data: head, channels and image size."""

from collections.abc import Sequence

from torch import nn

from stages.lib.core.errors import UserError

# Auxiliary heads are for training only, and change what a forward pass returns.
WITHOUT_AUXILIARY = {"aux_logits": False, "transform_input": False, "init_weights": True}
SQUARE = ("vit_", "maxvit_")


def _options(name: str, image_size: Sequence[int], classes: int) -> dict:
    options: dict = {"weights": None, "num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        options |= WITHOUT_AUXILIARY
    if name.startswith(SQUARE):
        if len(set(image_size)) > 1:
            raise UserError(f"model.name: {name} takes square images only; set data.image_size")
        if name.startswith("vit_"):
            patch = int(name.rpartition("_")[2])
            if image_size[0] % patch:
                raise UserError(
                    f"data.image_size: {image_size[0]} is not a multiple of {patch}, the patch of"
                    f" {name}"
                )
            options["image_size"] = image_size[0]
        else:
            options["input_size"] = tuple(image_size)
    return options


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The name and module of the convolution that reads the image."""
    return next(
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    )


def _take_channels(model: nn.Module, in_channels: int) -> None:
    name, old = first_convolution(model)
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
        model = models.get_model(name, **_options(name, image_size, classes))
    except (ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model.name: {name} cannot be built for images of {image_size[0]} pixels ({reason});"
            " set data.image_size"
        ) from None
    if in_channels != 3:
        _take_channels(model, in_channels)
    return model
