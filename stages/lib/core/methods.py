"""The registry of methods: the name of each, the stage that makes it, the method that it continues,
and its look in charts. Tables, charts, findings, sizes and the selection read this registry.

A new method is an entry of METHODS. docs/extending.md adds one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

# Families, by what a method does to the baseline: only trains it; removes single weights; removes
# filters; prunes one layer alone; quantizes its weights; packs it; writes an ONNX file.
DENSE, UNSTRUCTURED, STRUCTURED = "dense", "unstructured", "structured"
LAYER, INTEGER, PACKED, ONNX = "layer", "integer", "packed", "onnx"
# The colour of the text around a chart: black in a picture, light on a dark page.
INK = "currentColor"


class Look(NamedTuple):
    """The colour and shape of a method's points in charts."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Method:
    """A method, as named in a row's `method`.

    name: unique; letters, digits and underscores.
    title: its name for people.
    stage: the stage that makes its networks.
    family: one of the constants above.
    look: in charts. The colour stands for what is removed and by which rule; a square means that
        every layer has the same sparsity.
    continues: the method whose network it starts from.
    training: the section of params.yaml with its training; empty if it does not train, which charts
        show by dashed lines and hollow points.
    criterion: the module of stages/lib/pruning/criteria that scores the weights.
    scope: whose scores are compared: "layer" (each layer's own), "global" (all), or "latency" (all,
        as loss per microsecond saved).
    """

    name: str
    title: str
    stage: str
    family: str
    look: Look
    continues: str = "baseline"
    training: str = ""
    criterion: str = ""
    scope: str = ""

    @property
    def trained(self) -> bool:
        """Whether its networks are trained after pruning."""
        return bool(self.training)

    @property
    def masked(self) -> bool:
        """Whether its zeros are stored in tensors of the baseline's shape: only sparse kernels skip
        them.
        """
        if self.family == ONNX:
            return METHODS[self.continues].masked
        return self.family in (UNSTRUCTURED, LAYER)


# The methods that are exported to ONNX, and the forms. For the baseline, the int8 file of each
# calibration is kept too.
EXPORTED = (
    "baseline", "finetune", "structured_layer_finetune", "structured_global_finetune",
    "structured_latency_finetune",
)  # fmt: skip
FORMS = ("float32", "int8")
CALIBRATIONS = ("minmax", "entropy", "percentile")
# What may be done to weights and biases before they become int8, in this order.
IMPROVEMENTS = ("equalization", "adaptive_rounding", "bias_correction")


def exported_name(method: str, form: str, calibration: str = "") -> str:
    """The name of the method that is another method's ONNX file: onnx_finetune_int8."""
    return f"onnx_{method}_{form}{f'_{calibration}' if calibration else ''}"


def _exported(methods: Iterable[Method]) -> list[Method]:
    looks = {"float32": Look("#9A76C9", "cross"), "int8": Look("#7A52C7", "triangle-right")}
    found = []
    for one in methods:
        if one.name not in EXPORTED:
            continue
        title = "" if one.family == DENSE else f"{one.title}, "
        kinds = [("float32", "", ""), ("int8", "", " int8")]
        if one.name == "baseline":
            kinds += [("int8", name, f" int8, {name}") for name in CALIBRATIONS]
        found += [
            Method(
                exported_name(one.name, form, calibration), f"{title}ONNX{told}",
                "export_onnx", ONNX, looks[form], one.name, one.training,
            )
            for form, calibration, told in kinds
        ]  # fmt: skip
    return found


# Okabe and Ito's hues, as light as stands out (3:1) from a white and from a dark page alike.
_GREY, _LIGHT, _BLUE, _GREEN = "#808080", "#2B95CF", "#0072B2", "#00936B"
_ORANGE, _RED, _PINK = "#B97A00", "#D55E00", "#C2609C"
# In the order of the course.
_FLOAT32 = [
    Method("baseline", "dense baseline", "train_baseline", DENSE, Look(INK, "circle"), "",
           training="train_baseline"),
    Method("layer_alone", "one layer alone", "layerwise_sweep", LAYER, Look(_LIGHT, "circle")),
    Method("random_uniform", "random, layer-wise", "controls", UNSTRUCTURED,
           Look(_GREY, "square"), criterion="random", scope="layer"),
    Method("random_global", "random, global", "controls", UNSTRUCTURED,
           Look(_GREY, "circle"), criterion="random", scope="global"),
    Method("uniform", "layer-wise (uniform)", "layerwise_sweep", UNSTRUCTURED,
           Look(_LIGHT, "square"), criterion="magnitude", scope="layer"),
    Method("best_per_layer", "best trade-off per layer", "layerwise_sweep", UNSTRUCTURED,
           Look(_LIGHT, "diamond")),
    Method("global", "global", "global_prune", UNSTRUCTURED, Look(_BLUE, "circle"),
           criterion="magnitude", scope="global"),
    Method("baseline_finetune", "dense + fine-tuning", "controls", DENSE, Look(INK, "cross"),
           training="finetune"),
    Method("random_global_finetune", "random, global + fine-tuning", "controls", UNSTRUCTURED,
           Look(_GREY, "circle"), "random_global", training="finetune"),
    Method("uniform_finetune", "layer-wise + fine-tuning", "controls", UNSTRUCTURED,
           Look(_LIGHT, "square"), "uniform", training="finetune"),
    Method("finetune", "global + fine-tuning", "finetune", UNSTRUCTURED, Look(_BLUE, "circle"),
           "global", training="finetune"),
    Method("iterative", "iterative", "iterative_prune", UNSTRUCTURED, Look(_GREEN, "diamond"),
           training="iterative_prune"),
    Method("baseline_long", "dense + iterative's epochs", "controls", DENSE,
           Look(INK, "triangle-up"), training="iterative_prune"),
    Method("finetune_long", "global + iterative's epochs", "controls", UNSTRUCTURED,
           Look(_BLUE, "triangle-up"), training="iterative_prune"),
    Method("structured_layer", "structured, per layer", "structured_prune", STRUCTURED,
           Look(_ORANGE, "square"), scope="layer"),
    Method("structured_global", "structured, global", "structured_prune", STRUCTURED,
           Look(_RED, "circle"), scope="global"),
    Method("structured_latency", "structured, by latency", "structured_prune", STRUCTURED,
           Look(_PINK, "diamond"), scope="latency"),
    Method("structured_layer_finetune", "structured, per layer + fine-tuning", "structured_prune",
           STRUCTURED, Look(_ORANGE, "square"), "structured_layer", training="structured_prune",
           scope="layer"),
    Method("structured_global_finetune", "structured, global + fine-tuning", "structured_prune",
           STRUCTURED, Look(_RED, "circle"), "structured_global", training="structured_prune",
           scope="global"),
    Method("structured_latency_finetune", "structured, by latency + fine-tuning",
           "structured_prune", STRUCTURED, Look(_PINK, "diamond"), "structured_latency",
           training="structured_prune", scope="latency"),
]  # fmt: skip
_COMPRESSED = [
    Method("affine_tensor", "affine, per tensor", "int_quantize", INTEGER, Look(_BLUE, "circle")),
    Method("affine_channel", "affine, per channel", "int_quantize", INTEGER,
           Look(_LIGHT, "square")),
    Method("symmetric_tensor", "symmetric, per tensor", "int_quantize", INTEGER,
           Look(_RED, "diamond")),
    Method("symmetric_channel", "symmetric, per channel", "int_quantize", INTEGER,
           Look(_ORANGE, "triangle-up")),
    Method("baseline_taught", "dense + compress's training", "compress", DENSE,
           Look(INK, "triangle-down"), training="compress"),
    Method("packed", "pruned, quantized and packed", "compress", PACKED, Look("#C73A3A", "diamond"),
           training="compress"),
    Method("packed_pruned", "pruned and packed", "compress", PACKED, Look(_BLUE, "triangle-down"),
           training="compress"),
    Method("packed_quantized", "quantized and packed", "compress", PACKED, Look(_PINK, "square"),
           training="compress"),
]  # fmt: skip
METHODS: dict[str, Method] = {
    one.name: one for one in (*_FLOAT32, *_COMPRESSED, *_exported(_FLOAT32))
}


def of_family(*families: str) -> list[Method]:
    """The methods of these families, in the order of METHODS."""
    return [one for one in METHODS.values() if one.family in families]


def of_stage(*stages: str) -> list[Method]:
    """The methods that these stages make, in the order of METHODS."""
    return [one for one in METHODS.values() if one.stage in stages]


def stages() -> list[str]:
    """The stages that make networks, in the order of METHODS. Each has a folder per seed."""
    return list(dict.fromkeys(one.stage for one in METHODS.values()))


def recoveries() -> list[tuple[Method, Method]]:
    """Pairs: a method that prunes only, and the method that fine-tunes its networks."""
    return [
        (METHODS[one.continues], one)
        for one in of_family(UNSTRUCTURED, STRUCTURED)
        if one.trained and not METHODS[one.continues].trained
    ]


def finetuned_by_controls() -> dict[str, Method]:
    """The methods that stage `controls` can fine-tune, by name, and what each becomes."""
    return {one.continues: one for one in of_stage("controls") if one.training == "finetune"}


def made_by(name: str) -> list[str]:
    """The stages that a method's networks go through, train_baseline first."""
    found: list[str] = []
    while name:
        method = METHODS[name]
        found.append(method.stage)
        name = method.continues
    return list(dict.fromkeys(reversed(found)))
