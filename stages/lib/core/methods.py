"""Every method of the pipeline, registered once: what it is called, which stage makes it, what it
continues, how it looks in charts. Tables, charts, findings, sizes and the selection ask here.

A new method is an entry of METHODS. docs/extending.md adds one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

# What a method makes of the baseline: nothing but training; fewer single weights; fewer filters;
# one layer pruned alone; integer weights; a packed file; a file for ONNX Runtime.
DENSE, UNSTRUCTURED, STRUCTURED = "dense", "unstructured", "structured"
LAYER, INTEGER, PACKED, ONNX = "layer", "integer", "packed", "onnx"
# The colour of text around a chart, whatever that is: black in a picture, light on a dark page.
INK = "currentColor"


class Look(NamedTuple):
    """The colour and the shape of a method's points in charts."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Method:
    """What a row's `method` names.

    name: unique, of letters, digits and underscores.
    title: as people read it.
    stage: that makes it.
    family: one of the constants above.
    look: in charts; colour says what is removed and by what rule (Okabe and Ito's palette, told
        apart by colour-blind readers), a square "each layer alike".
    continues: the method whose network it starts from; the baseline's unless given.
    training: the section of params.yaml that says how it trains; empty where it does not, which
        charts show as dashed lines and hollow points.
    criterion: how weights are chosen: the module of stages/lib/pruning/criteria that scores them.
    scope: which scores are compared: "layer" those of each layer alone, "global" all.
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
        """Whether its networks train after they were pruned."""
        return bool(self.training)

    @property
    def masked(self) -> bool:
        """Whether its zeros stand in tensors of the dense shape, which only sparse kernels skip."""
        if self.family == ONNX:
            return METHODS[self.continues].masked
        return self.family in (UNSTRUCTURED, LAYER)


# ONNX files: of which methods, and in which forms. int8 by one calibration is kept of the baseline.
EXPORTED = ("baseline", "finetune", "structured_layer_finetune", "structured_global_finetune")
FORMS = ("float32", "int8")
CALIBRATIONS = ("minmax", "entropy", "percentile")


def exported_name(method: str, form: str, calibration: str = "") -> str:
    """The name of a method's ONNX file as a method: onnx_finetune_int8."""
    return f"onnx_{method}_{form}{f'_{calibration}' if calibration else ''}"


def _exported(methods: Iterable[Method]) -> list[Method]:
    looks = {"float32": Look("#8A6FB3", "cross"), "int8": Look("#5B3A8E", "triangle-right")}
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
                exported_name(one.name, form, calibration), f"{title}ONNX Runtime{told}",
                "export_onnx", ONNX, looks[form], one.name, one.training,
            )
            for form, calibration, told in kinds
        ]  # fmt: skip
    return found


_GREY, _LIGHT, _BLUE, _GREEN = "#999999", "#56B4E9", "#0072B2", "#009E73"
_ORANGE, _RED, _PINK = "#E69F00", "#D55E00", "#CC79A7"
# In the order in which the course takes them.
_TRAINED_HERE = [
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
           Look(_ORANGE, "square")),
    Method("structured_global", "structured, global", "structured_prune", STRUCTURED,
           Look(_RED, "circle")),
    Method("structured_layer_finetune", "structured, per layer + fine-tuning", "structured_prune",
           STRUCTURED, Look(_ORANGE, "square"), "structured_layer", training="structured_prune"),
    Method("structured_global_finetune", "structured, global + fine-tuning", "structured_prune",
           STRUCTURED, Look(_RED, "circle"), "structured_global", training="structured_prune"),
]  # fmt: skip
_COMPRESSED = [
    Method("affine_tensor", "affine, per tensor", "int_quantize", INTEGER, Look(_BLUE, "circle")),
    Method("affine_channel", "affine, per channel", "int_quantize", INTEGER,
           Look(_LIGHT, "square")),
    Method("symmetric_tensor", "symmetric, per tensor", "int_quantize", INTEGER,
           Look(_RED, "diamond")),
    Method("symmetric_channel", "symmetric, per channel", "int_quantize", INTEGER,
           Look(_ORANGE, "triangle-up")),
    Method("packed", "pruned, quantized and packed", "compress", PACKED, Look("#B22222", "diamond"),
           training="compress"),
    Method("packed_pruned", "pruned and packed", "compress", PACKED, Look(_BLUE, "triangle-down"),
           training="compress"),
    Method("packed_quantized", "quantized and packed", "compress", PACKED, Look(_PINK, "square"),
           training="compress"),
]  # fmt: skip
METHODS: dict[str, Method] = {
    one.name: one for one in (*_TRAINED_HERE, *_COMPRESSED, *_exported(_TRAINED_HERE))
}


def of_family(*families: str) -> list[Method]:
    """The methods of these families, in the order of METHODS."""
    return [one for one in METHODS.values() if one.family in families]


def of_stage(*stages: str) -> list[Method]:
    """The methods that these stages make, in the order of METHODS."""
    return [one for one in METHODS.values() if one.stage in stages]


def stages() -> list[str]:
    """The stages that make networks, in the order of METHODS; a directory per seed each."""
    return list(dict.fromkeys(one.stage for one in METHODS.values()))


def recoveries() -> list[tuple[Method, Method]]:
    """A method as pruned, and the one that fine-tunes its networks."""
    return [
        (METHODS[one.continues], one)
        for one in of_family(UNSTRUCTURED, STRUCTURED)
        if one.trained and not METHODS[one.continues].trained
    ]


def finetuned_by_controls() -> dict[str, Method]:
    """What stage `controls` can fine-tune: the name of a method, and the method that it becomes."""
    return {one.continues: one for one in of_stage("controls") if one.training == "finetune"}


def made_by(name: str) -> list[str]:
    """The stages through which a method's networks go, the baseline's first."""
    found: list[str] = []
    while name:
        method = METHODS[name]
        found.append(method.stage)
        name = method.continues
    return list(dict.fromkeys(reversed(found)))
