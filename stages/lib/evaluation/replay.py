"""Evaluates a network with one weight changed many times, and computes what comes before that
weight only once.

A forward pass calls modules in a fixed order. A module that has returned before the changed weight
is first used cannot depend on it. Its output is kept from one recorded pass and returned again;
only the rest is computed. This assumes nothing about the network's graph, and gives the results of
whole passes bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from stages.lib.evaluation.samples import Samples
from stages.lib.models.modes import evaluating


def _tensors(value: Any) -> list[torch.Tensor] | None:
    """The tensors of what a module returned; None where it is nothing that can be kept."""
    values = value if type(value) is tuple else (value,)
    tensors = [part for part in values if part is not None]
    if not all(isinstance(part, torch.Tensor) for part in tensors):
        return None
    # Inference tensors do not tell whether they were written to.
    return None if any(tensor.is_inference() for tensor in tensors) else tensors


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return value if value is None else tuple(map(_copied, value))


def _masked(weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    # Keep the weight's layout, which decides the kernel: the product may have the mask's layout.
    return weight.clone().mul_(mask)


@dataclass
class _Call:
    """One call of a module in the recorded pass: its start and end in the log of calls, what it
    returned, and the version of that value at the time.
    """

    start: int
    end: int
    value: Any
    versions: list[int]


class Replay:
    """Wraps every module below `model` while it is entered. The model must be in evaluation mode
    and gradients must be off.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = {name: module for name, module in model.named_modules() if name}
        # A network may have set a module's forward itself.
        self.own_forwards = {
            name: module.forward
            for name, module in self.modules.items()
            if "forward" in vars(module)
        }
        # By a module's name and the number of its call.
        self.recorded: dict[tuple[str, int], _Call] = {}
        # Outputs that a later operation changes in place (`out += shortcut`): copies are returned.
        self.overwritten: set[tuple[str, int]] = set()
        self.log: list[str] = []
        self.counts: dict[str, int] = {}

    def __enter__(self) -> "Replay":
        for name, module in self.modules.items():
            module.forward = self._wrapped(name, module.forward)
        return self

    def __exit__(self, *_: object) -> None:
        for name, module in self.modules.items():
            del module.forward
            if name in self.own_forwards:
                module.forward = self.own_forwards[name]

    def _wrapped(self, name: str, forward: Callable) -> Callable:
        def call(*arguments: Any, **keywords: Any) -> Any:
            key = (name, self.counts.get(name, 0))
            self.counts[name] = key[1] + 1
            if self.limit is not None:
                known = self.recorded.get(key)
                if known is None or known.end > self.limit:
                    return forward(*arguments, **keywords)
                # The calls that this one made when recorded do not happen now, but count.
                for inner in self.log[known.start + 1 : known.end]:
                    self.counts[inner] = self.counts.get(inner, 0) + 1
                return _copied(known.value) if key in self.overwritten else known.value
            start = len(self.log)
            self.log.append(name)
            value = forward(*arguments, **keywords)
            tensors = _tensors(value)
            if tensors is not None:
                kept = _copied(value) if key in self.overwritten else value
                versions = [tensor._version for tensor in tensors]
                self.recorded[key] = _Call(start, len(self.log), kept, versions)
            return value

        return call

    def _run(self, batch: torch.Tensor, limit: int | None) -> torch.Tensor:
        self.counts, self.limit = {}, limit
        return self.model(batch.clone())

    def record(self, batch: torch.Tensor) -> torch.Tensor:
        """Runs a whole pass, keeps it for `replay`, and returns the logits."""
        while True:
            self.recorded, self.log = {}, []
            logits = self._run(batch, None)
            spoiled = {
                key
                for key, call in self.recorded.items()
                if [tensor._version for tensor in _tensors(call.value)] != call.versions
            } - self.overwritten
            if not spoiled:
                return logits
            self.overwritten |= spoiled

    def replay(self, batch: torch.Tensor, first_use: int) -> torch.Tensor:
        """The logits of the recorded batch after a change of a weight first used at `first_use`."""
        return self._run(batch, first_use)

    def first_use(self, weight: str) -> int:
        """The place in the log of calls where the parameter `weight` is first used: by the module
        that owns it or, if that is never called, by the nearest enclosing module that is.
        """
        parameter = self.model.get_parameter(weight)
        places = []
        for name, module in self.modules.items():
            if any(one is parameter for one in module.parameters(recurse=False)):
                while name and name not in self.log:
                    name = name.rpartition(".")[0]
                places.append(self.log.index(name) if name else 0)
        return min(places, default=0)


@torch.no_grad()
def predict_masked(
    model: nn.Module,
    samples: Samples,
    masks: Mapping[str, Sequence[torch.Tensor]],
    label: str = "predicting",
) -> dict[str, list[torch.Tensor]]:
    """The network's predictions with one weight masked at a time.

    masks: for each weight, by parameter name, the masks to try.
    label: names the progress bar.

    Returns for each weight and mask the predicted class of each sample, int64 [n] on the CPU. The
    network is in evaluation mode meanwhile.
    """
    classes = {name: [[] for _ in variants] for name, variants in masks.items()}
    whole: set[str] = set()
    batches = tqdm(
        samples.batches(), label, samples.batch_count, unit="batch", leave=False, disable=None
    )
    with evaluating(model), Replay(model) as replay:
        for number, batch in enumerate(batches):
            replay.record(batch)
            for name, variants in masks.items():
                parameter = model.get_parameter(name)
                dense = parameter.data
                start = 0 if name in whole else replay.first_use(name)
                try:
                    if number == 0 and start > 0 and variants:
                        # Check with the mask that removes most: one that removes nothing proves
                        # nothing.
                        parameter.data = _masked(dense, min(variants, key=torch.count_nonzero))
                        if not torch.equal(replay.replay(batch, start), replay.replay(batch, 0)):
                            # The network does more than its calls show, so run whole passes.
                            whole.add(name)
                            start = 0
                    for mask, parts in zip(variants, classes[name], strict=True):
                        parameter.data = _masked(dense, mask)
                        parts.append(replay.replay(batch, start).argmax(1).cpu())
                finally:
                    parameter.data = dense
    return {name: [torch.cat(parts) for parts in lists] for name, lists in classes.items()}
