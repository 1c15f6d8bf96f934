"""Which weights of a network may be pruned."""

import json
from collections.abc import Sequence

import torch
from torch import nn

from stages.lib.core import custom_model
from stages.lib.models import origins, uses
from stages.lib.models.modes import gradients, input_like
from stages.lib.models.origins import copied

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Attention projects queries, keys and values by one matrix, or by three if their widths differ.
PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def _weights_of(module: nn.Module) -> tuple[str, ...]:
    """The names of a module's own prunable weights."""
    if isinstance(module, WEIGHTED):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        return tuple(name for name in PROJECTIONS if getattr(module, name) is not None)
    return ()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and linear layers, whose filters or units can be removed, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)}


def _candidates(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of convolutions, linear layers and attention's projections, by parameter name. A
    weight that layers share is listed once.
    """
    by_id: dict[int, tuple[str, nn.Parameter]] = {}
    for name, module in model.named_modules():
        for leaf in _weights_of(module):
            weight = module._parameters.get(leaf)
            if weight is not None:
                by_id.setdefault(id(weight), (f"{name}.{leaf}" if name else leaf, weight))
    return dict(by_id.values())


def _how_to_make_plain(module: nn.Module, leaf: str) -> str:
    """How a weight that is no parameter becomes one, by what stands in its place."""
    parts = {*module._parameters, *module._buffers}
    if f"{leaf}_mask" in parts:
        return f"torch.nn.utils.prune.remove(layer, {leaf!r})"
    if f"{leaf}_g" in parts:
        return "torch.nn.utils.remove_weight_norm"
    if f"{leaf}_u" in parts:
        return "torch.nn.utils.remove_spectral_norm"
    return "torch.nn.utils.parametrize.remove_parametrizations"


def _in_place_of_parameters(model: nn.Module) -> dict[str, str]:
    """Weights that are computed from other parameters (weight norm, …), and how to mend it."""
    return {
        f"{name}.{leaf}".removeprefix("."): (
            "its weight is computed from other parameters; make it a plain weight with"
            f" {_how_to_make_plain(module, leaf)}"
        )
        for name, module in model.named_modules()
        for leaf in _weights_of(module)
        if module._parameters.get(leaf) is None
    }


def _by_trial(model: nn.Module, image_shape: Sequence[int]) -> dict[str, str]:
    """Weights of which a trial shows that pruning them would remove nothing, and why."""
    model = copied(model).eval()
    weights = _candidates(model)
    # A network may branch on its images: dark, bright and noisy ones.
    noise = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    trained = [name for name, weight in weights.items() if weight.requires_grad]
    used: set[str] = set()
    for images in (noise, 3 * noise, noise.abs() + 1, -noise.abs() - 1, 0 * noise):
        watched = uses.Uses(weights)
        with watched, torch.enable_grad():
            logits = model(images.to(input_like(model)))
        # A frozen weight has no gradient: it is used where it is multiplied.
        used |= {name for name, count in watched.positions.items() if count} - set(trained)
        if logits.requires_grad:
            found = gradients(logits.sum(), [weights[name] for name in trained])
            used |= {name for name, one in zip(trained, found, strict=True) if one is not None}
    changed = uses.changing(model, weights, noise.to(input_like(model)))
    return {
        **{name: "no logit depends on it" for name in weights if name not in used},
        **dict.fromkeys(
            changed,
            "its forward computes other weights from it, which are not zero where it is zero"
            " (weight standardization, …); store what is used as a plain weight",
        ),
    }


_known: dict[str, dict[str, str]] = {}


def excluded(model: nn.Module) -> dict[str, str]:
    """The weights of convolutions, linear layers and attention that pruning would not remove, by
    name, and why. Of a custom network, that is tried out once.
    """
    origin = origins.find(model)
    found = _in_place_of_parameters(model)
    if origin is None or not custom_model.is_own(origin.architecture["name"]):
        return found
    key = json.dumps(origin.architecture)
    if key not in _known:
        shape = origin.architecture["in_channels"], *origin.architecture["image_size"]
        try:
            _known[key] = _by_trial(model, shape)
        except Exception:  # noqa: BLE001 - what fails, the check of the network tells
            return found
    return found | _known[key]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The prunable weights by parameter name: those of convolutions, linear layers and attention's
    projections, without those of `excluded`. A weight that layers share is listed once.

    Biases, norms and embeddings are few and are not pruned.
    """
    without = excluded(model)
    found = _candidates(model)
    return {name: weight.detach() for name, weight in found.items() if name not in without}


def layer_of(weight: str) -> str:
    """The name of a weight's layer in tables: the weight's name without `.weight`."""
    return weight.removesuffix(".weight")
