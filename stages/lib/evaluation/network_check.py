"""Checks a network in both modes before anything is trained. Each finding is a line with a remedy.

A finding ends the run if numbers would be wrong or training is impossible; others are notes.
"""

import re
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from stages.lib.core.errors import UserError, reason
from stages.lib.evaluation import counting
from stages.lib.models import prunable
from stages.lib.models.modes import gradients, input_like
from stages.lib.models.origins import copied

# Relative to the largest logit: more is no rounding.
TOLERANCE = 1e-4
IMAGES = 4
# Words of torch's errors about sizes of images.
SIZES = re.compile(r"size|shape|dimension|channel|kernel|divisible|multiple", re.IGNORECASE)


class _RefusedError(Exception):
    """The first finding that ends the run, where no other can be looked for."""


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    return [
        name
        for name in before | after
        if name not in before or name not in after
        or not torch.equal(before[name].nan_to_num(), after[name].nan_to_num())
    ]  # fmt: skip


def _differ(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference relative to the largest logit. Undefined logits are equal."""
    one, other = one.double().nan_to_num(), other.double().nan_to_num()
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-30))


def _must_be_plain(model: nn.Module) -> None:
    """Raises _RefusedError for a network that no model file can hold, or not in float32."""
    parameters = dict(model.named_parameters())
    if not parameters:
        raise _RefusedError("has no parameters; keep its layers as attributes")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise _RefusedError(
            "is TorchScript, which hides its layers; return the module without torch.jit.script"
        )
    odd = [key for key, value in model.state_dict().items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise _RefusedError(
            f"keeps state that is no tensor ({odd[0]}), which no model file takes; do without"
            " get_extra_state"
        )
    empty = [name for name, parameter in parameters.items() if parameter.is_meta]
    if empty:
        raise _RefusedError(
            f"has parameters without values ({_shown(empty)}); build it without the device meta"
        )
    other = [
        f"{name}: {str(parameter.dtype).removeprefix('torch.')}"
        for name, parameter in parameters.items()
        if parameter.dtype not in (torch.float32, torch.complex64)
    ]
    if other:
        raise _RefusedError(
            f"is not in float32 ({_shown(other)}); return it with .float(), number formats are"
            " tried in dtype_bench"
        )


def _answer(model: nn.Module, images: torch.Tensor, classes: int, where: str) -> torch.Tensor:
    """The logits of a copy of the images. _RefusedError if of another shape."""
    try:
        logits = model(images.clone())
    except Exception as error:  # noqa: BLE001 - any network may be named
        shape = "×".join(map(str, images.shape[1:]))
        remedy = "set data.image_size to what it needs"
        if not SIZES.search(str(error)):
            remedy = "mend its forward"
        raise _RefusedError(
            f"cannot take images of {shape}{where} ({reason(error)}); {remedy}"
        ) from None
    count = len(images)
    if not isinstance(logits, torch.Tensor):
        answer, remedy = f"a {type(logits).__name__}", "return the logits alone"
        if where:
            remedy += ", without auxiliary outputs"
    elif logits.shape == (count, classes):
        return logits
    else:
        answer, remedy = list(logits.shape), "let the factory take num_classes"
        if logits.numel() == count:
            remedy = f"give the last layer {classes} outputs, also for two classes: one logit each"
    raise _RefusedError(
        f"answers {count} images{where} with {answer} where a tensor [{count}, {classes}] is"
        f" wanted, a logit per class; {remedy}"
    )


@torch.no_grad()
def _evaluation(model: nn.Module, images: torch.Tensor, classes: int) -> Iterator[str]:
    """Findings in evaluation mode. Raises _RefusedError for those that make every number wrong."""
    model.eval()
    before = _state(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = _answer(model, images, classes, "")
        _answer(model, 2 * images.flip(0) + 1, classes, "")
        again = _answer(model, images, classes, "")
        moved = _moved(before, _state(model))
        if _differ(first, again) > TOLERANCE:
            seeded = []
            for _ in range(2):
                torch.manual_seed(0)
                seeded.append(_answer(model, images, classes, ""))
            cause = "its state moves"
            remedy = "change it only if self.training"
            if moved:
                cause = f"it changes {_shown(moved)}"
            elif _differ(*seeded) <= TOLERANCE:
                cause = "it draws random numbers"
                remedy = "give functional.dropout training=self.training"
            raise _RefusedError(
                f"answers the same image differently in evaluation ({cause}), so no accuracy would"
                f" be true; {remedy}"
            )
    if moved:
        yield f"changes {_shown(moved)} in evaluation too; better only if self.training"
    if float(first.min()) >= 0 and bool(((first.sum(1) - 1).abs() < TOLERANCE).all()):
        yield (
            "answers with probabilities; the loss takes logits, so it trains badly: return what the"
            " softmax is given"
        )
    try:
        alone = torch.cat([model(image.clone()) for image in images.split(1)])
    except Exception:  # noqa: BLE001 - it cannot take a single image
        yield "cannot take a single image, so no latency of one is measured"
        return
    if alone.shape == first.shape and _differ(first, alone) > TOLERANCE:
        yield (
            "answers an image differently beside other images (a batch norm without running"
            " statistics?), so its accuracy depends on the batch size"
        )


def _training(model: nn.Module, images: torch.Tensor, classes: int) -> Iterator[str]:
    """Findings in training mode. Raises _RefusedError if it cannot be trained."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise _RefusedError("has no parameter that requires a gradient; leave some unfrozen")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        logits = _answer(model, images, classes, " in training")
        if not logits.requires_grad:
            raise _RefusedError(
                "has logits without a gradient, so it cannot be trained; take torch.no_grad,"
                " inference_mode and detach out of its forward"
            )
        try:
            found = gradients(nn.functional.cross_entropy(logits, _labels(classes)), trained)
        except Exception as error:  # noqa: BLE001 - any network may be named
            raise _RefusedError(f"has no gradient ({reason(error)}); mend its forward") from None
    if all(one is None for one in found):
        raise _RefusedError("has logits on which no parameter that is trained has an effect")
    yield from ()


def _labels(classes: int) -> torch.Tensor:
    return torch.arange(IMAGES) % classes


def _pruning(model: nn.Module) -> Iterator[str]:
    """Which weights may be pruned, and which not. Raises _RefusedError if none may."""
    weights, without = prunable.weights(model), prunable.excluded(model)
    if not weights:
        why = next((f" ({name}: {text})" for name, text in without.items()), "")
        raise _RefusedError(f"has no convolution or linear layer to prune{why}")
    reasons: dict[str, list[str]] = {}
    for name, text in without.items():
        reasons.setdefault(text, []).append(name)
    for text, names in reasons.items():
        yield f"keeps {_shown(names)} whole: {text}"
    share = 100 * counting.prunable_weights(model) / counting.parameters(model)
    yield (
        f"has {counting.parameters(model):,} parameters; {len(weights)} weight tensors,"
        f" {share:.1f} % of them, may be pruned"
    )


def examine(
    model: nn.Module, image_shape: Sequence[int], classes: int, name: str, section: str = "model"
) -> list[str]:
    """Runs copies of the network on a few images, in evaluation and in training. Returns notes.

    image_shape: (channels, height, width).
    classes: the number of logits that are wanted.
    name: of the network, in the lines.
    section: of the params that names it, in errors.

    Raises UserError if it cannot be used.
    """
    images = torch.randn(IMAGES, *image_shape, generator=torch.Generator().manual_seed(0))
    notes: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _must_be_plain(model)
            images = images.to(input_like(model))
            notes += _evaluation(copied(model), images, classes)
            if min(image_shape[1:]) > 1:  # batch norm cannot train on one value per channel
                notes += _training(copied(model), images, classes)
            notes += _pruning(model)
    except _RefusedError as finding:
        raise UserError(f"{section}.name: {name} {finding}") from None
    vague = {
        str(warning.message).partition(" ")[0]
        for warning in caught
        if "deterministic" in str(warning.message)
    }
    if vague:
        notes.append(
            f"uses {_shown(sorted(vague))}, which torch computes in no fixed order: a second run"
            " may give other numbers"
        )
    return [f"{name} {note}" for note in notes]
