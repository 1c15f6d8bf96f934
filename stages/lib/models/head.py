"""The last layer of a pretrained network, and which of its logits are the classes of the data."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from stages.lib.core.errors import UserError, printable

MOST_BYTES = 2**24
_WORDNET_ID = re.compile(r"n\d{8}")
_LAYERS = (nn.Linear, nn.Conv2d)


def _names(entry: Any) -> list[str]:
    """The names of one logit: of ["n01440764", "tench"], or of "n01440764 tench, Tinca tinca"."""
    if isinstance(entry, list):
        return [name for one in entry for name in _names(one)]
    text = str(entry).strip()
    first, _, rest = text.partition(" ")
    known = [text, *(part.strip() for part in text.split(","))]
    if _WORDNET_ID.fullmatch(first):
        known += [first, *_names(rest)]
    return known


def _listed(found: Any) -> Iterator[tuple[int, list[str]]]:
    """(logit, its names) of what a JSON file holds: a list of names, {"0": name} or {name: 0}."""
    if isinstance(found, dict):
        inner = next((found[key] for key in ("id2label", "label2id") if key in found), found)
        for key, value in inner.items():
            # true is no logit.
            if type(value) is int:
                yield value, _names(key)
            else:
                yield int(key), _names(value)
    else:
        for logit, entry in enumerate(found):
            yield logit, _names(entry)


def _spelled(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def read(path: Path, classes: Sequence[str]) -> tuple[int, list[int]]:
    """The number of logits that a file names, and the logit of each class.

    path: JSON (a list of names, {"0": name}, {name: 0}, also below id2label), or a text with a name
        per line. A logit may have several names; case, `_` and `-` do not matter.
    classes: of the data.

    Raises UserError if the file is missing or damaged, or lacks a class.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("too long")
        text = path.read_text(encoding="utf-8-sig")
        is_json = text.lstrip()[:1] in ("{", "[")
        listed = list(_listed(json.loads(text) if is_json else text.splitlines()))
    except FileNotFoundError:
        raise UserError(
            f"model.class_index: {path}: not found; give a file's path, or none"
        ) from None
    except (ValueError, TypeError, RecursionError, AttributeError, OSError):
        raise UserError(
            f"model.class_index: {path}: neither JSON that maps logits to names nor a text with a"
            " name per line"
        ) from None
    logits: dict[str, set[int]] = {}
    for logit, names in listed:
        for name in map(_spelled, names):
            logits.setdefault(name, set()).add(logit)
    if not logits or min(logit for logit, _ in listed) < 0:
        raise UserError(f"model.class_index: {path}: names no logit, or one below 0")
    rows = [logits.get(_spelled(name), set()) for name in classes]
    for name, found in zip(classes, rows, strict=True):
        if len(found) != 1:
            what = "is not in" if not found else f"may be logit {min(found)} or {max(found)} of"
            known = ", ".join(printable(names[0]) for _, names in listed[:3])
            raise UserError(
                f"model.class_index: class {printable(name)} {what} {path}, which has {known}, …;"
                " call the class folders, or the names in the file, alike"
            )
    chosen = [one for found in rows for one in found]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"model.class_index: {path}: two classes have the same logit")
    return 1 + max(logit for logit, _ in listed), chosen


def find(model: nn.Module, outputs: int) -> str | None:
    """The name of the network's last layer with this many outputs."""
    found = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, _LAYERS) and len(layer.weight) == outputs
    ]
    return found[-1] if found else None


def tensors(model: nn.Module, outputs: int, rows: Sequence[int]) -> dict[str, Sequence[int]]:
    """The names of the last layer's tensors, each with the rows of a pretrained one to take."""
    name = find(model, outputs)
    return {f"{name}.{tensor}": rows for tensor in ("weight", "bias")}


def keep_(model: nn.Module, outputs: int, rows: Sequence[int]) -> None:
    """Takes all logits but `rows` out of a network with `outputs` logits, in place."""
    name = find(model, outputs)
    if name is None:
        raise UserError(
            f"model.class_index: the network has no layer with {outputs} outputs; the file has to"
            " name every logit of the network"
        )
    layer = model.get_submodule(name)
    layer.weight = nn.Parameter(layer.weight.detach()[list(rows)].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[list(rows)].clone())
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows))
