"""Finds the network's weights among the tensors of a checkpoint, and loads them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from stages.lib.core.errors import UserError
from stages.lib.core.params import AUTO
from stages.lib.models import head as last_layer
from stages.lib.models import torchvision_models
from stages.lib.models.weights_file import Stored

# Auxiliary heads, and AveragedModel's counter.
IGNORED = ("aux1.", "aux2.", "AuxLogits.", "n_averaged")
# What wrappers put into names: DataParallel, torch.compile, FSDP, activation checkpointing.
INFIXES = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Batch norm's step counter, which older files lack and nothing here reads.
OPTIONAL = "num_batches_tracked"
# Names in torchvision's DenseNet files, written when module names could contain dots.
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")
# What keys of averaged weights hold.
AVERAGED = re.compile(r"ema|averag|swa|shadow", re.IGNORECASE)


class Place(NamedTuple):
    """Where the network's tensors may be in a file.

    prefix: what stands before their names there.
    missing_prefix: what the network's own names have before these, if the network is a wrapper.
    """

    prefix: str
    missing_prefix: str

    @property
    def key(self) -> str:
        """As model.weights_key names it."""
        return self.prefix.rstrip(".")


class Fitted(NamedTuple):
    """fresh: the names of the tensors that start fresh, those of the last layer. reason: why.
    key: which of the file's weights were taken. others: keys of others that fit as well.
    """

    fresh: list[str]
    key: str
    others: list[str]
    reason: str


def _three(names: Sequence[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _wrappers(names: Sequence[str]) -> list[str]:
    """The prefixes that all of the network's names share: of a network in a network."""
    found = [""]
    while True:
        heads = {name[len(found[-1]) :].partition(".")[0] for name in names}
        if len(heads) > 1 or not all(
            name.startswith(f"{found[-1]}{next(iter(heads))}.") for name in names
        ):
            return found
        found.append(f"{found[-1]}{heads.pop()}.")


def places(stored: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[Place]:
    """The places at which most of the network's names are found, those whose tensors have the
    right shapes first. Empty if none is found.
    """
    scores: Counter[Place] = Counter()
    for outer in _wrappers(list(wanted)):
        inner = {name.removeprefix(outer): tensor for name, tensor in wanted.items()}
        for name, tensor in stored.items():
            parts = name.split(".")
            for start in range(len(parts)):
                target = inner.get(".".join(parts[start:]))
                if target is not None:
                    prefix = "".join(f"{part}." for part in parts[:start])
                    # A name counts most, its shape decides between equals.
                    scores[Place(prefix, outer)] += 2 + (target.shape == tensor.shape)
    best = max(scores.values(), default=0)
    found = [place for place, score in scores.items() if score == best]
    return sorted(found, key=lambda place: bool(AVERAGED.search(place.prefix)))


def _below(stored: Stored, key: str, path: object) -> list[str]:
    """The names of the tensors below a key."""
    names = [name for name in stored.tensors if key == AUTO or name.startswith(f"{key}.")]
    if not names:
        groups = [group for group in dict.fromkeys(stored.groups.values()) if group]
        raise UserError(
            f"model.weights_key: {key} is not in {path}; it has {_three(groups) or 'no keys'};"
            " allowed: one of these, or auto"
        )
    return names


def _plain(name: str, wanted: Mapping[str, torch.Tensor]) -> str:
    """A name without what wrappers put into it, and as torchvision spells it today."""
    if name in wanted:
        return name
    parts = [part for part in name.split(".") if part not in INFIXES]
    return OLD_DENSENET.sub(r"\1\2", ".".join(parts))


def _misfit(given: torch.Tensor, target: torch.Tensor) -> str:
    """What is odd about a tensor, but for its shape."""
    real = given.is_floating_point() or not target.is_floating_point()
    if real and given.layout is torch.strided and not given.is_meta:
        return ""
    return f"of {given.dtype}, {given.device.type}, {given.layout} for {target.dtype}"


def fit(
    model: nn.Module,
    stored: Stored,
    classes: int,
    path: object,
    key: str = AUTO,
    head: Mapping[str, Sequence[int]] | None = None,
) -> Fitted:
    """Loads the weights into the network, in place.

    A first convolution for three channels is summed over them if the images have one channel.

    stored: the file's tensors.
    classes: the number of classes of the data.
    path: is named in errors.
    key: which of the file's weights are taken; AUTO: those whose names fit best.
    head: for each tensor of the head, which of its rows are the data's classes.

    Raises UserError with the names of other tensors that are missing, unknown or of another shape.
    """
    wanted, head = model.state_dict(), head or {}
    named = {_plain(name, wanted): name for name in _below(stored, key, path)}
    tensors = {name: stored.tensors[own] for name, own in named.items()}
    found = places(tensors, wanted)
    describe = (
        f"; it has {_three(named)}; the network wants {_three(wanted)}; model.name (or"
        " model.width) is another network than the one they belong to"
    )
    if not found:
        raise UserError(f"model.weights: {path} has no tensor of the network's{describe}")
    place = found[0]
    mine = {
        place.missing_prefix + name.removeprefix(place.prefix): value
        for name, value in tensors.items()
        if name.startswith(place.prefix)
    }
    # Beside a state dict there may be others in the file, for which no place is wanted.
    groups = {
        place.missing_prefix + name.removeprefix(place.prefix): stored.groups[own]
        for name, own in named.items()
    }
    taken = {groups[name] for name in mine if name in wanted}
    stem = f"{torchvision_models.first_convolution(model)}.weight"
    loaded, fresh, misfits = {}, [], []
    for name, target in wanted.items():
        if name not in mine:
            continue
        given = mine[name]
        odd = _misfit(given, target)
        if odd:
            misfits.append(f"{name} {odd}")
            continue
        if name == stem and given.dim() == 4 and given.shape[1] == 3 and target.shape[1] == 1:
            given = given.sum(1, keepdim=True)
        if name in head and len(given) > max(head[name]):
            given = given[list(head[name])]
        if given.shape == target.shape:
            loaded[name] = given
        elif target.shape[:1] == (classes,) and given.shape[1:] == target.shape[1:]:
            fresh.append(name)  # a head for another number of classes
        else:
            misfits.append(f"{name} {list(given.shape)} for {list(target.shape)}")
    missing = [name for name in wanted if name not in mine and not name.endswith(OPTIONAL)]
    reason = "made for another number of classes"
    if missing and set(missing) <= set(last_layer.tensors(model, classes, ())):
        # Of a network that was trained without labels.
        missing, fresh, reason = [], missing, "not in the file"
    left_over = [
        name
        for name in mine
        if name not in wanted
        and not name.removeprefix(place.missing_prefix).startswith(IGNORED)
        and groups[name] in taken
    ]
    for what, names in {
        "lacks": missing, "has, unknown to the network,": left_over, "has misfitting": misfits,
    }.items():  # fmt: skip
        if names:
            at = f" ({place.key})" if place.key else ""
            raise UserError(f"model.weights: {path}{at} {what} {_three(names)}{describe}")
    if not all(bool(torch.isfinite(value).all()) for value in loaded.values()):
        raise UserError(f"model.weights: {path} holds values that are infinite or undefined")
    model.load_state_dict({**wanted, **loaded})
    return Fitted(fresh, place.key, [other.key for other in found[1:]], reason)
