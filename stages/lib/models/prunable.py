"""Which weights of a network may be pruned."""

import torch
from torch import nn

from stages.lib.core.errors import UserError

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


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The prunable weights by parameter name: those of convolutions, linear layers and attention's
    projections. A weight that layers share is listed once.

    Biases, norms and embeddings are few and are not pruned. Raises UserError for a weight that is
    computed from other parameters, because pruning it would change nothing.
    """
    by_id: dict[int, tuple[str, torch.Tensor]] = {}
    for name, module in model.named_modules():
        for leaf in _weights_of(module):
            full = f"{name}.{leaf}" if name else leaf
            weight = module._parameters.get(leaf)
            if weight is None:
                raise UserError(
                    f"layer {name}: its weight is computed from other parameters (weight norm,"
                    " spectral norm, …), so pruning it would change nothing; make it a plain weight"
                    " with torch.nn.utils.parametrize.remove_parametrizations"
                )
            by_id.setdefault(id(weight), (full, weight.detach()))
    return dict(by_id.values())


def layer_of(weight: str) -> str:
    """The name of a weight's layer in tables: the weight's name without `.weight`."""
    return weight.removesuffix(".weight")
