"""The model card of the recommended files: what they are, how good they are, how they were made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.analysis.selection import Budgets, Candidate, Choice
from stages.lib.core import custom_model, engines, methods, normalization, paths, preprocessing

VERSION = 3
NORMALIZE = "normalize"
# The `data.source` that is a person's own.
OWN = "image_folder"
LOADERS = {
    paths.PACKED: "stages.lib.compression.packed.load(path)[0]",
    paths.SAFETENSORS: "stages.lib.models.checkpoints.load_model(path)",
}
INTEGER_LOADER = "stages.lib.quantization.linear.load_model(path)[0]"
# The columns of a row that the card repeats.
REPEATED = (
    "seed", "target_sparsity", "sparsity", "weight_bits", "parameters", "nonzero_parameters",
    "macs", "extra_epochs", "validation_accuracy", "test_accuracy",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The run that the files come from.

    settings: the sections of the params, as plain values.
    sections: the names of the sections that each stage reads.
    meta: of `prepared.read_meta`.
    machine: of `hardware.read`.
    confidence: of each interval.
    """

    seeds: Sequence[int]
    settings: Mapping[str, Any]
    sections: Mapping[str, Sequence[str]]
    meta: Mapping[str, Any]
    machine: Mapping[str, Any]
    confidence: float

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, of images scaled to 0…1."""
        name = self.settings["model"][NORMALIZE]
        return normalization.of(name, self.meta["mean"], self.meta["std"])


def _input(suffix: str, run: Run) -> dict[str, Any]:
    """What the file expects. mean, std: one number per channel, of images scaled to 0…1."""
    about = {"shape": ["n", *run.meta["image_shape"]], "dtype": "uint8", "range": [0, 255]}
    if suffix == paths.ONNX:
        return {"name": "images", **about, NORMALIZE: "inside the file"}
    how = "(pixels / 255 − mean) / std, channel by channel, in float32, before the network"
    mean, std = run.normalization
    return {**about, NORMALIZE: {"mean": mean, "std": std}, "how": how}


def _loader(candidate: Candidate, suffix: str, network: str) -> str:
    """The call that reads the file. It names a custom network, because a file must not choose which
    code runs.
    """
    if suffix == paths.ONNX:
        return engines.ENGINES[candidate.engine].load
    family = methods.METHODS[candidate.shipped.method].family
    call = INTEGER_LOADER if family == methods.INTEGER else LOADERS[suffix]
    own = custom_model.is_own(network)
    return call.replace("(path)", f"(path, network={network!r})") if own else call


def _deployed(
    candidate: Candidate, told: Mapping[str, Any], role: str, sha256: str, run: Run
) -> dict[str, Any]:
    """The card's entry for a file. told: what the selection says about the candidate."""
    row = candidate.shipped
    source = Path(row.model)
    stages = methods.made_by(row.method)
    sections = dict.fromkeys(
        name for stage in ("prepare_data", *stages) for name in run.sections[stage]
    )
    return {
        **told,
        "file": role + source.suffix,
        "source": row.model,
        "sha256": sha256,
        "load": _loader(candidate, source.suffix, run.settings["model"]["name"]),
        "input": _input(source.suffix, run),
        "output": {
            "shape": ["n", len(run.meta["classes"])],
            "dtype": "float32",
            "values": "logits, in the order of data.classes",
        },
        "this_seed": {name: getattr(row, name) for name in REPEATED},
        "made": {"stages": stages, "params": {name: run.settings[name] for name in sections}},
    }


def describe(
    selected: Mapping[str, Any],
    choices: Mapping[str, Choice],
    sha256: Mapping[str, str],
    budgets: Budgets,
    run: Run,
) -> dict[str, Any]:
    """The card of the recommended files, for JSON. Accuracies and losses are shares. The name of a
    person's own data is that of their folder.

    selected: the selection, as stored.
    choices: the networks, by role.
    sha256: of the file of each role that has one.
    """
    recommended = selected["recommended"]
    roles = {
        role: {
            "chosen": choice.candidate
            and _deployed(choice.candidate, recommended[role]["choice"], role, sha256[role], run),
            "reason": choice.reason,
            "nearest": recommended[role]["nearest"],
        }
        for role, choice in choices.items()
    }
    data = ("source", "checksum", "classes", "image_shape", "images")
    mean, std = run.normalization
    source, root = run.meta["source"], Path(run.settings["data"]["root"])
    return {
        "version": VERSION,
        "budgets": dict(budgets),
        **roles,
        "baseline": selected["baseline"],
        "seeds": list(run.seeds),
        "confidence": run.confidence,
        "data": {"name": (source == OWN and root.stem) or source}
        | {name: run.meta[name] for name in data},
        "preprocessing": preprocessing.describe(run.meta["image_shape"])
        | {"normalization": {"mean": mean, "std": std}},
        "machine": dict(run.machine),
    }
