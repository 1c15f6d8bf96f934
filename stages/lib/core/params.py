"""Every parameter: its section, its type and what it may be. The only module that reads
params.yaml.

The file is validated whole each time, whatever a stage needs of it, so that a typo in the
last section stops the first stage. All problems are reported at once.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from stages.lib.core import custom_model, hardware, network_names, paths
from stages.lib.core.errors import UserError
from stages.lib.core.rules import (
    POSITIVE_SPARSITY,
    SPARSITY,
    Rule,
    boolean,
    choice,
    file,
    integer,
    listing,
    network,
    number,
    shown,
    text,
    word_or,
)

TORCHVISION_SETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")
SOURCES = ("digits", *TORCHVISION_SETS, "image_folder")
# A mirrored digit is another digit, or none.
UNMIRRORED_SOURCES = ("digits", "mnist", "svhn")
COLORS = ("auto", "grey", "rgb")
PRECISIONS = ("auto", "float32", "bfloat16")
NORMALIZATIONS = ("training", "imagenet", "half", "none")
NO_WEIGHTS = "none"
NO_LIMIT = "none"
# equal_budget.sparsities: every one that iterative pruning reaches.
ALL = "all"
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "float16", "bfloat16")
NETWORKS = ("baseline", "resnet152")
SCOPES = ("layer", "global")
# What can be fine-tuned beside the globally pruned networks, to compare them with.
CONTROLS = ("baseline", "uniform", "random_global")
SCHEMES = ("affine", "symmetric")
GRANULARITIES = ("tensor", "channel")
# What makes a packed network small: pruning and quantizing together, and each alone.
ARMS = ("both", "pruned", "quantized")
CALIBRATIONS = ("minmax", "entropy", "percentile")
AUTO = "auto"

TEMPERATURE = number(above=0, most=100)
SEED = integer(0, 2**32 - 1)
EPOCHS = integer(1, 10_000)
RATE = number(above=0, most=10)
BATCH = integer(1, 65_536)
SECONDS = number(above=0, most=3600)
FRACTION = number(least=0, most=1)


def _setting(rule: Rule) -> Any:
    return field(metadata={"rule": rule})


@dataclass(frozen=True)
class Compute:
    device: str = _setting(choice(*DEVICES))
    threads: int = _setting(integer(1, 1024))
    precision: str = _setting(choice(*PRECISIONS))


@dataclass(frozen=True)
class Data:
    source: str = _setting(choice(*SOURCES))
    root: str = _setting(text())
    image_size: int | str = _setting(word_or("auto", integer(8, 1024)))
    color: str = _setting(choice(*COLORS))
    max_unreadable: int = _setting(integer(0, 10**9))
    validation_images: int = _setting(integer(1, 10**9))
    test_images: int = _setting(integer(1, 10**9))
    split_seed: int = _setting(SEED)


@dataclass(frozen=True)
class Model:
    name: str = _setting(network(network_names.NAMES, custom_model.is_own))
    width: int = _setting(integer(1, 1024))
    weights: str = _setting(word_or(NO_WEIGHTS, file(*paths.WEIGHTS)))
    normalize: str = _setting(choice(*NORMALIZATIONS))


@dataclass(frozen=True)
class Training:
    batch_size: int = _setting(integer(2, 65_536))
    momentum: float = _setting(number(least=0, below=1))
    weight_decay: float = _setting(number(least=0, most=1))
    shift: int = _setting(integer(0, 64))
    mirror: bool = _setting(boolean())


@dataclass(frozen=True)
class TrainBaseline:
    epochs: int = _setting(integer(0, 10_000))
    learning_rate: float = _setting(RATE)


@dataclass(frozen=True)
class LayerwiseSweep:
    max_accuracy_drop: float = _setting(FRACTION)


@dataclass(frozen=True)
class Finetune:
    epochs: int = _setting(EPOCHS)
    learning_rate: float = _setting(RATE)


@dataclass(frozen=True)
class IterativePrune:
    target: float = _setting(POSITIVE_SPARSITY)
    step: float = _setting(number(least=0.001, below=1, decimals=4))
    epochs_per_step: int = _setting(EPOCHS)
    learning_rate: float = _setting(RATE)


@dataclass(frozen=True)
class Controls:
    finetuned: list[str] = _setting(listing(choice(*CONTROLS)))
    equal_budget: str | list[float] = _setting(
        word_or(ALL, listing(POSITIVE_SPARSITY, ascending=True))
    )


@dataclass(frozen=True)
class Compress:
    arms: list[str] = _setting(listing(choice(*ARMS)))
    times_smaller: list[float] = _setting(listing(number(above=1, most=1000), ascending=True))
    bits: list[int] = _setting(listing(integer(2, 8), ascending=True))
    granularity: str = _setting(choice(*GRANULARITIES))
    epochs: int = _setting(EPOCHS)
    learning_rate: float = _setting(RATE)
    distillation: float = _setting(FRACTION)
    temperature: float = _setting(TEMPERATURE)
    sensitivity_images: int = _setting(integer(1, 1_000_000))


@dataclass(frozen=True)
class StructuredPrune:
    sparsities: list[float] = _setting(listing(POSITIVE_SPARSITY, ascending=True))
    scopes: list[str] = _setting(listing(choice(*SCOPES)))
    multiple_of: int = _setting(integer(1, 64))
    epochs: int = _setting(EPOCHS)
    learning_rate: float = _setting(RATE)
    distillation: float = _setting(FRACTION)
    temperature: float = _setting(TEMPERATURE)


@dataclass(frozen=True)
class DtypeBench:
    networks: list[str] = _setting(listing(choice(*NETWORKS)))
    dtypes: list[str] = _setting(listing(choice(*DTYPES)))
    devices: list[str] = _setting(listing(choice("cpu", "cuda")))
    batch_sizes: list[int] = _setting(listing(BATCH, ascending=True))
    resnet152_image_size: int = _setting(integer(32, 1024))
    agreement_images: int = _setting(integer(1, 100_000))
    seconds: float = _setting(SECONDS)


@dataclass(frozen=True)
class LatencyBench:
    batch_sizes: list[int] = _setting(listing(BATCH, ascending=True))
    seconds: float = _setting(SECONDS)
    threads: int = _setting(integer(1, 1024))
    compile: bool = _setting(boolean())
    compile_seconds: float = _setting(SECONDS)


@dataclass(frozen=True)
class IntQuantize:
    bits: list[int] = _setting(listing(integer(2, 16), ascending=True))
    schemes: list[str] = _setting(listing(choice(*SCHEMES)))
    granularities: list[str] = _setting(listing(choice(*GRANULARITIES)))
    store_bits: list[int] = _setting(listing(integer(2, 16), ascending=True))


@dataclass(frozen=True)
class ExportOnnx:
    structured_scopes: str | list[str] = _setting(word_or(ALL, listing(choice(*SCOPES))))
    structured_sparsities: str | list[float] = _setting(
        word_or(ALL, listing(POSITIVE_SPARSITY, ascending=True))
    )
    calibration: list[str] = _setting(listing(choice(*CALIBRATIONS)))
    calibration_images: int = _setting(integer(1, 100_000))
    percentile: float = _setting(number(least=50, most=100))
    weight_bits: int | str = _setting(word_or(AUTO, integer(7, 8)))


@dataclass(frozen=True)
class Package:
    max_accuracy_drop: float = _setting(FRACTION)
    max_bytes: int | str = _setting(word_or(NO_LIMIT, integer(1, 2**40)))
    max_latency_ms: float | str = _setting(word_or(NO_LIMIT, number(above=0, most=1_000_000)))


@dataclass(frozen=True)
class Report:
    sparsity: float = _setting(SPARSITY)
    confidence: float = _setting(number(least=0.5, below=1))
    tolerance: float = _setting(FRACTION)


# A section is a mapping of keys (a dataclass above) or one bare value (a rule).
SECTIONS: dict[str, type | Rule] = {
    "seeds": listing(SEED),
    "sparsities": listing(SPARSITY, ascending=True),
    "compute": Compute,
    "data": Data,
    "model": Model,
    "training": Training,
    "train_baseline": TrainBaseline,
    "layerwise_sweep": LayerwiseSweep,
    "finetune": Finetune,
    "iterative_prune": IterativePrune,
    "controls": Controls,
    "structured_prune": StructuredPrune,
    "compress": Compress,
    "dtype_bench": DtypeBench,
    "latency_bench": LatencyBench,
    "int_quantize": IntQuantize,
    "export_onnx": ExportOnnx,
    "package": Package,
    "report": Report,
}


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, where PyYAML would silently take the last."""


def _mapping_without_doubles(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            continue
        if key in seen:
            line = key_node.start_mark.line + 1
            raise UserError(f"line {line}: the key {key} is there twice; keep one of the two")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_doubles)


def parse(text: str) -> Any:
    """YAML text to plain values. UserError with the line for a syntax error or a doubled key."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{place}this is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"this is not YAML: {reason}") from None
    except RecursionError:
        raise UserError("this is nested too deeply") from None
    except (AttributeError, IndexError, KeyError):  # PyYAML's own, e.g. for `!!bool x`
        raise UserError("this is not YAML: a tag (!!) does not fit its value") from None


def _unknown(path: str, given: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(str(given), list(known), 1, cutoff=0.0)
    path = path if path.isprintable() else repr(path)
    return f"{path}: unknown key; the nearest known one is {nearest[0]}"


def _allowed(kind: type | Rule) -> str:
    if isinstance(kind, Rule):
        return kind.allowed
    return "the keys " + ", ".join(entry.name for entry in dataclasses.fields(kind))


def _section_problems(name: str, kind: type | Rule, value: Any) -> Iterator[str]:
    if isinstance(kind, Rule):
        for suffix, text in kind.problems(value):
            yield f"{name}{suffix}: {text}"
        return
    rules = {entry.name: entry.metadata["rule"] for entry in dataclasses.fields(kind)}
    if not isinstance(value, dict):
        yield f"{name}: {shown(value)} is not a section; allowed: {_allowed(kind)}"
        return
    for key in value:
        if key not in rules:
            yield _unknown(f"{name}.{key}", key, rules)
    for key, rule in rules.items():
        if key not in value:
            yield f"{name}.{key}: missing; allowed: {rule.allowed}"
            continue
        for suffix, text in rule.problems(value[key]):
            yield f"{name}.{key}{suffix}: {text}"


def _cross_problems(sections: dict[str, Any]) -> Iterator[str]:
    """What no single key can know. Runs only on values that passed their own rules."""
    iterative = sections["iterative_prune"]
    if iterative.target < iterative.step:
        yield (
            f"iterative_prune.target: {iterative.target} is below iterative_prune.step"
            f" ({iterative.step}); allowed: at least one step"
        )
    compared, reached = (
        sections["controls"].equal_budget,
        [point for point in sections["sparsities"] if 0 < point <= iterative.target],
    )
    for sparsity in [] if compared == ALL else compared:
        if sparsity not in reached:
            yield (
                f"controls.equal_budget: {sparsity} is not among the sparsities that iterative"
                f" pruning reaches; allowed: {', '.join(map(str, reached))}"
            )
    quantize = sections["int_quantize"]
    for bits in quantize.store_bits:
        if bits not in quantize.bits:
            yield (
                f"int_quantize.store_bits: {bits} is not among int_quantize.bits;"
                f" allowed: {', '.join(map(str, quantize.bits))}"
            )
    removed = sections["structured_prune"]
    for name in ("scopes", "sparsities"):
        exported, there = (
            getattr(sections["export_onnx"], f"structured_{name}"),
            getattr(removed, name),
        )
        for value in [] if exported == ALL else exported:
            if value not in there:
                yield (
                    f"export_onnx.structured_{name}: {value} is not among structured_prune.{name};"
                    f" allowed: {ALL}, or some of {', '.join(map(str, there))}"
                )
    sparsity = sections["report"].sparsity
    if sparsity not in sections["sparsities"]:
        yield (
            f"report.sparsity: {sparsity} is not among sparsities;"
            f" allowed: {', '.join(map(str, sections['sparsities']))}"
        )
    source = sections["data"].source
    if source in UNMIRRORED_SOURCES and sections["training"].mirror:
        yield f"training.mirror: true is not allowed with data.source {source}; allowed: false"
    if sections["train_baseline"].epochs == 0 and sections["model"].weights == NO_WEIGHTS:
        yield (
            "train_baseline.epochs: 0 leaves the network untrained; allowed: 1 or more, or"
            " model.weights with trained ones"
        )
    if sections["compute"].device == "cuda" and not hardware.cuda_devices():
        yield "compute.device: cuda, but this machine has no CUDA device; allowed: auto or cpu"


def validate(values: Any) -> dict[str, Any]:
    """Checks the content of a params file and returns its sections by name.

    A section is a frozen dataclass of this module, or a list for `seeds` and `sparsities`.
    Raises UserError with one line per problem, each with the key's path, the value and what
    is allowed.
    """
    if not isinstance(values, dict):
        raise UserError(f"the file holds {shown(values)}; allowed: {', '.join(SECTIONS)}")
    problems = [_unknown(str(name), name, SECTIONS) for name in values if name not in SECTIONS]
    sections: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        if name not in values:
            problems.append(f"{name}: missing section; allowed: {_allowed(kind)}")
            continue
        found = list(_section_problems(name, kind, values[name]))
        problems += found
        if not found:
            value = values[name]
            sections[name] = value if isinstance(kind, Rule) else kind(**value)
    if len(sections) == len(SECTIONS):
        problems += _cross_problems(sections)
    if problems:
        raise UserError("\n".join(problems))
    return sections


def read(*names: str, path: Path = paths.PARAMS) -> SimpleNamespace:
    """Validates the whole file and returns the sections `names` alone, as attributes.

    A stage gets only what it asks for, so what `dvc.yaml` lists under its `params` can be
    compared with what it reads. Raises UserError, each line headed by the file's name.
    """
    try:
        sections = validate(parse(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the repository's root") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UserError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    return SimpleNamespace(**{name: sections[name] for name in names})
