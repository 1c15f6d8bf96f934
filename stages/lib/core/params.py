"""Every parameter: its section, its type and its allowed values. The only module that reads
params.yaml.

Each stage validates the whole file, so that a typo in the last section stops the first stage. All
problems are reported at once.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Interval
from pydantic import ValidationError

from stages.lib.core import custom_model, hardware, methods, network_names, paths, rules
from stages.lib.core.errors import UserError, reason
from stages.lib.core.rules import Section, ascending, decimals, several, string

TORCHVISION_SETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "eurosat")
SOURCES = ("digits", *TORCHVISION_SETS, "image_folder")
# A mirrored digit is another digit or none at all.
UNMIRRORED_SOURCES = ("digits", "mnist", "svhn")
# No file, no limit.
NONE = "none"
# model.weights_key: the weights whose names fit best.
AUTO = "auto"
# controls.equal_budget: every sparsity that iterative pruning reaches.
ALL = "all"
BASELINE = "baseline"
# The methods that stage `controls` can fine-tune, to compare with globally pruned networks.
CONTROLS = tuple(methods.finetuned_by_controls())
# Of a batch, in each rank: batch norm cannot train on one image.
LEAST_IMAGES = 2
# Of the ConvNet, also as a teacher: it has 88 million weights.
MOST_WIDTH = 512
# On this machine. Each takes 0.3 GB, and more than one per core wait for each other.
MOST_WORKERS_PER_CORE = 4

Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]
Epochs = Annotated[int, Interval(ge=1, le=10_000)]
Images = Annotated[int, Interval(ge=1, le=10**9)]
Threads = Annotated[int, Interval(ge=1, le=1024)]
# Of networks that are timed: the images of a batch are in memory with all that is computed of them.
BatchSize = Annotated[int, Interval(ge=1, le=1024)]
Rate = Annotated[float, Interval(gt=0, le=10)]
Seconds = Annotated[float, Interval(gt=0, le=3600)]
Share = Annotated[float, Interval(ge=0, le=1)]
# File names hold sparsities and sizes with this many digits, so no two may look the same.
Sparsity = Annotated[float, Interval(ge=0, lt=1), decimals(4)]
PositiveSparsity = Annotated[float, Interval(gt=0, lt=1), decimals(4)]
TimesSmaller = Annotated[float, Interval(gt=1, le=1000), decimals(2)]
# At a much lower temperature, logits divided by it are infinite.
Temperature = Annotated[float, Interval(ge=0.1, le=100)]
Scope = Literal["layer", "global", "latency"]
Granularity = Literal["tensor", "channel"]
Calibration = Literal[methods.CALIBRATIONS]
Text = string(
    "a text, not empty and on one line",
    lambda path: path.isprintable() and not path.isspace() and bool(path),
)
Network = string(
    "convnet, resnet20, resnet56, a classification model of torchvision (resnet18,"
    " mobilenet_v3_small, …) or path/to/file.py:FUNCTION",
    lambda name: name in network_names.NAMES or custom_model.is_own(name),
    network_names.NAMES,
)


Address = string(
    "auto, or the HOST:PORT of a Ray cluster's head, or ray://HOST:PORT",
    lambda text: text == "auto" or bool(re.fullmatch(r"(ray://)?[\w.\[\]:-]+:\d+", text)),
    ("auto",),
)


class Compute(Section):
    device: Literal["auto", "cpu", "cuda"]
    threads: Threads
    ranks: Annotated[int, Interval(ge=1, le=1024)]
    precision: Literal["auto", "float32", "bfloat16"]


class Engine(Section):
    name: Literal["local", "ray"]
    workers: Literal["auto"] | Annotated[int, Interval(ge=1, le=1024)]
    ahead: bool
    address: Address
    state_minutes: Annotated[float, Interval(ge=0, le=10_000)]


class Data(Section):
    source: Literal[SOURCES]
    root: Text
    image_size: Literal["auto"] | Annotated[int, Interval(ge=8, le=1024)]
    color: Literal["auto", "grey", "rgb"]
    max_unreadable: Annotated[int, Interval(ge=0, le=10**9)]
    validation_images: Images
    test_images: Images
    split_seed: Seed


class Model(Section):
    name: Network
    width: Annotated[int, Interval(ge=1, le=MOST_WIDTH)]
    weights: Text
    weights_key: Text
    class_index: Text
    normalize: Literal["training", "imagenet", "half", "none"]


class Training(Section):
    batch_size: Annotated[int, Interval(ge=2, le=65_536)]
    # Nearer to 1, and the first steps count until the end.
    momentum: Annotated[float, Interval(ge=0, le=0.999)]
    weight_decay: Share
    shift: Annotated[int, Interval(ge=0, le=64)]
    mirror: bool


class TrainBaseline(Section):
    epochs: Annotated[int, Interval(ge=0, le=10_000)]
    learning_rate: Rate


class Teacher(Section):
    name: Literal[BASELINE] | Network
    width: Annotated[int, Interval(ge=1, le=MOST_WIDTH)]
    weights: Text
    epochs: Annotated[int, Interval(ge=0, le=10_000)]
    learning_rate: Rate


class LayerwiseSweep(Section):
    max_accuracy_drop: Share


class Finetune(Section):
    epochs: Epochs
    learning_rate: Rate


class IterativePrune(Section):
    target: PositiveSparsity
    step: Annotated[float, Interval(ge=0.001, lt=1), decimals(4)]
    epochs_per_step: Epochs
    learning_rate: Rate


class Controls(Section):
    finetuned: several(Literal[CONTROLS], least=0)
    equal_budget: Literal[ALL] | ascending(PositiveSparsity, least=0)


class StructuredPrune(Section):
    sparsities: ascending(PositiveSparsity, least=0)
    scopes: several(Scope, least=0)
    multiple_of: Annotated[int, Interval(ge=1, le=64)]
    epochs: Epochs
    learning_rate: Rate
    distillation: Share
    temperature: Temperature


class Compress(Section):
    arms: several(Literal["both", "pruned", "quantized", "baseline"], least=0)
    times_smaller: ascending(TimesSmaller, least=0)
    epochs: Epochs
    learning_rate: Rate
    distillation: Share
    temperature: Temperature


class DtypeBench(Section):
    networks: several(Literal["baseline", "resnet152"], least=0)
    dtypes: several(Literal["float32", "float16", "bfloat16"], least=0)
    devices: several(Literal["cpu", "cuda"], least=0)
    batch_sizes: ascending(BatchSize, least=0)
    # At both ends, the images take 0.8 GB.
    resnet152_image_size: Annotated[int, Interval(ge=32, le=512)]
    agreement_images: Annotated[int, Interval(ge=1, le=1024)]
    seconds: Seconds


class LatencyBench(Section):
    batch_sizes: ascending(BatchSize, least=0)
    seconds: Seconds
    threads: Threads


class IntQuantize(Section):
    bits: ascending(Annotated[int, Interval(ge=2, le=16)], least=0)
    schemes: several(Literal["affine", "symmetric"], least=0)
    granularities: several(Granularity, least=0)
    store_bits: ascending(Annotated[int, Interval(ge=2, le=16)], least=0)


class ExportOnnx(Section):
    structured_scopes: Literal[ALL] | several(Scope, least=0)
    structured_sparsities: Literal[ALL] | ascending(PositiveSparsity, least=0)
    calibration: several(Calibration, least=0)
    calibration_images: Annotated[int, Interval(ge=1, le=100_000)]
    percentile: Annotated[float, Interval(ge=50, le=100)]
    weight_bits: Literal["auto"] | Annotated[int, Interval(ge=7, le=8)]
    improvements: Literal["none"] | several(Literal[methods.IMPROVEMENTS], least=0)
    keep_float: Literal["none", "auto"]
    max_int8_drop: Share
    least_agreement: Share


class Package(Section):
    max_accuracy_drop: Share
    max_bytes: Literal[NONE] | Annotated[int, Interval(ge=1, le=2**40)]
    max_latency_ms: Literal[NONE] | Annotated[float, Interval(gt=0, le=1_000_000)]


class Report(Section):
    sparsity: Sparsity
    # Nearer to 1, and the quantiles of every interval are infinite.
    confidence: Annotated[float, Interval(ge=0.5, le=0.9999)]
    course: bool
    tolerance: Share


class Params(Section):
    """The whole file."""

    seeds: several(Seed)
    sparsities: ascending(Sparsity, least=0)
    compute: Compute
    engine: Engine
    data: Data
    model: Model
    training: Training
    train_baseline: TrainBaseline
    teacher: Teacher
    layerwise_sweep: LayerwiseSweep
    finetune: Finetune
    iterative_prune: IterativePrune
    controls: Controls
    structured_prune: StructuredPrune
    compress: Compress
    dtype_bench: DtypeBench
    latency_bench: LatencyBench
    int_quantize: IntQuantize
    export_onnx: ExportOnnx
    package: Package
    report: Report


SECTIONS = tuple(Params.model_fields)
# Sections that change no result: dvc.yaml does not list them, so that a change reruns nothing.
UNTRACKED = ("engine",)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice. PyYAML would silently take the last one."""


def _mapping_without_doubles(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            continue
        key.encode()  # a ValueError where it holds half a character
        if key in seen:
            line = key_node.start_mark.line + 1
            raise UserError(f"line {line}: the key {key} is there twice; keep one of the two")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_doubles)


def parse(text: str) -> Any:
    """Parses YAML text. UserError with the line for a syntax error or a key written twice."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{place}this is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"this is not YAML: {reason(error)}") from None
    except (AttributeError, IndexError, KeyError):  # PyYAML's own, e.g. for `!!bool x`
        raise UserError("this is not YAML: a tag (!!) does not fit its value") from None


def _contradictions(sections: Params) -> Iterator[str]:
    """Contradictions between keys. Only for values that passed their own checks."""
    iterative, sparsities = sections.iterative_prune, sections.sparsities
    quantize, exported = sections.int_quantize, sections.export_onnx
    structured = sections.structured_prune
    if iterative.target < iterative.step:
        yield (
            f"iterative_prune.target: {iterative.target} is below iterative_prune.step"
            f" ({iterative.step}); allowed: at least one step"
        )
    reached = [sparsity for sparsity in sparsities if 0 < sparsity <= iterative.target]
    for key, chosen, there, name in (
        ("controls.equal_budget", sections.controls.equal_budget, reached,
         "the sparsities that iterative pruning reaches"),
        ("int_quantize.store_bits", quantize.store_bits, quantize.bits, "int_quantize.bits"),
        ("export_onnx.structured_scopes", exported.structured_scopes, structured.scopes,
         "structured_prune.scopes"),
        ("export_onnx.structured_sparsities", exported.structured_sparsities, structured.sparsities,
         "structured_prune.sparsities"),
        ("report.sparsity", [sections.report.sparsity], sparsities, "sparsities"),
    ):  # fmt: skip
        # Of networks that are not made at all, none is exported, stored or compared.
        none = not there and (not sparsities or key != "controls.equal_budget")
        for value in [] if chosen == ALL or none else chosen:
            if value not in there:
                some = ", ".join(map(str, there)) or "[]"
                yield f"{key}: {value} is not among {name}; allowed: {some}"
    source = sections.data.source
    if source in UNMIRRORED_SOURCES and sections.training.mirror:
        yield f"training.mirror: true is not allowed with data.source {source}; allowed: false"
    ranks, batch = sections.compute.ranks, sections.training.batch_size
    if ranks > batch // LEAST_IMAGES:
        yield (
            f"compute.ranks: {ranks}, but a batch has {batch} images (training.batch_size) and each"
            f" rank needs {LEAST_IMAGES} of them; allowed: at most {batch // LEAST_IMAGES}"
        )
    model = sections.model
    size, shift = sections.data.image_size, sections.training.shift
    if size != AUTO and shift >= size:
        yield (
            f"training.shift: {shift}, but images have {size} pixels a side (data.image_size);"
            f" allowed: at most {size - 1}"
        )
    # An own network may bring its weights.
    trained = model.weights != NONE or custom_model.is_own(model.name)
    if sections.train_baseline.epochs == 0 and not trained:
        yield (
            "train_baseline.epochs: 0 leaves the network untrained; allowed: 1 or more, or"
            " model.weights with trained ones"
        )
    teacher = sections.teacher
    brought = teacher.weights != NONE or custom_model.is_own(teacher.name)
    if teacher.epochs == 0 and teacher.name != BASELINE and not brought:
        yield (
            "teacher.epochs: 0 leaves the teacher untrained; allowed: 1 or more, or teacher.weights"
            " with trained ones"
        )
    if model.class_index != NONE and not trained:
        yield (
            "model.class_index: a file, but no pretrained network; allowed: none, or model.weights"
            " with the weights whose logits it names"
        )


def _too_much_for_this_machine(sections: Params) -> Iterator[str]:
    if sections.compute.device == "cuda" and not hardware.cuda_devices():
        yield "compute.device: cuda, but this machine has no CUDA device; allowed: auto or cpu"
    compute, cores, gpus = sections.compute, hardware.cores(), len(hardware.cuda_devices())
    on_gpus = gpus > 0 and compute.device != "cpu"
    most, what = (gpus, "GPUs") if on_gpus else (max(1, cores // compute.threads), "cores")
    if sections.engine.name == "local" and compute.ranks > most:
        each = "" if on_gpus or compute.threads == 1 else f" for {compute.threads} threads each"
        yield (
            f"compute.ranks: {compute.ranks}, but there are {gpus if on_gpus else cores} {what}"
            f" here{each}; allowed: at most {most}"
        )
    workers, most = sections.engine.workers, MOST_WORKERS_PER_CORE * max(cores, gpus)
    if sections.engine.name == "local" and workers != AUTO and workers > most:
        yield f"engine.workers: {workers}, but there are {cores} cores; allowed: at most {most}"
    for section in ("compute", "latency_bench"):
        threads = getattr(sections, section).threads
        # More threads than cores only wait for each other.
        if threads > cores:
            yield (
                f"{section}.threads: {threads}, but this process may use {cores}"
                f" {'core' if cores == 1 else 'cores'}; allowed: at most {cores}"
            )


def validate(values: Any) -> Params:
    """Checks the content of a params file.

    Raises UserError with one line per problem: the key's path, the value and what is allowed.
    """
    if not isinstance(values, dict):
        raise UserError(f"the file holds {rules.shown(values)}; allowed: {', '.join(SECTIONS)}")
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(rules.problems(Params, error, values))) from None
    problems = [*_contradictions(params), *_too_much_for_this_machine(params)]
    if problems:
        raise UserError("\n".join(problems))
    return params


@lru_cache(maxsize=4)
def _validated(text: str) -> Params:
    # A stage reads the file again and again; parsing takes 20 ms.
    return validate(parse(text))


def read(*names: str, path: Path = paths.PARAMS) -> SimpleNamespace:
    """Validates the whole file and returns only the sections `names`, as attributes.

    A stage gets only the sections that dvc.yaml lists for it, so it cannot read others. Raises
    UserError; each line begins with the file's name.
    """
    try:
        params = _validated(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the repository's root") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except UserError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    return SimpleNamespace(**{name: getattr(params, name) for name in names})


def shown(params: SimpleNamespace) -> dict[str, Any]:
    """As `plain`, for files that are handed over: of an absolute path only the last part."""

    def without_place(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_place(one) for key, one in value.items()}
        absolute = isinstance(value, str) and Path(value).is_absolute()
        return Path(value).name if absolute else value

    return without_place(plain(params))


def plain(params: SimpleNamespace) -> dict[str, Any]:
    """The params that `read` returned, as plain values by section."""
    return {
        name: value.model_dump() if isinstance(value, Section) else value
        for name, value in vars(params).items()
    }
