"""Which weights of a network pruning may touch."""

import torch
from torch import nn

from stages.lib.core.errors import UserError

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Attention projects queries, keys and values by one matrix, or by three of different widths.
PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def _weights_of(module: nn.Module) -> tuple[str, ...]:
    """The names of a module's own weights that are multiplied with its input."""
    if isinstance(module, WEIGHTED):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        return tuple(name for name in PROJECTIONS if getattr(module, name) is not None)
    return ()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and linear layers, by name: those that have filters or units to lose."""
    return {name: one for name, one in model.named_modules() if isinstance(one, WEIGHTED)}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that pruning may touch, by parameter name: those of convolutions, linear layers
    and attention's projections, each once where layers share it.

    Biases, norms and embeddings are few and stay whole. Raises UserError for a weight that is
    computed from other parameters: pruning it would change nothing.
    """
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
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
            if id(weight) not in seen:
                seen.add(id(weight))
                found[full] = weight.detach()
    return found


def layer_of(weight: str) -> str:
    """The layer that a weight is said to belong to in tables: its name without `.weight`."""
    return weight.removesuffix(".weight")
