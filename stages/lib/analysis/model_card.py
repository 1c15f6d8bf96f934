"""What is said of the deployed files: what they are, what they are worth, how they were made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib.analysis import selection, statistics
from stages.lib.analysis.selection import Budgets, Candidate, Choice
from stages.lib.analysis.timings import Timing
from stages.lib.core import normalization, paths
from stages.lib.core.errors import UserError
from stages.lib.core.records import REMEDY, Row

VERSION = 1
# The sections of params.yaml that every network is made with.
ALWAYS = ("compute", "data", "model", "training", "train_baseline")
# And those by which a stage makes its own.
OF_STAGE = {
    "train_baseline": (),
    "finetune": ("finetune",),
    "iterative_prune": ("iterative_prune",),
    "equal_budget": ("iterative_prune", "equal_budget"),
    "structured_prune": ("structured_prune",),
    "int_quantize": ("int_quantize",),
    "compress": ("compress",),
    "onnx_bench": ("onnx_bench",),
}
# The stages whose networks onnx_bench writes, by how the methods of its files begin.
EXPORTED = {"onnx_finetune": "finetune", "onnx_structured": "structured_prune"}
TRAINING, NORMALIZE = "training", "normalize"
PACKED_LOADER = "stages.lib.packed.load(path)[0]"
INTEGER_LOADER = "stages.lib.quantization.load_model(path)[0]"
FLOAT_LOADER = "stages.lib.checkpoints.load_model(path)"
ONNX_LOADER = "onnxruntime.InferenceSession(path)"
FLOAT32 = 32


@dataclass(frozen=True)
class Run:
    """What the choices were made from.

    seeds; dense: the dense network; settings: all sections of params that networks are made with,
    as plain values; meta: as `prepared.read_meta` gives it; machine: as `hardware.read` does;
    onnxruntime: its version; confidence: of each interval; timed: whether onnx_bench times a batch
    of one image.
    """

    seeds: Sequence[int]
    dense: Candidate
    settings: Mapping[str, Any]
    meta: Mapping[str, Any]
    machine: Mapping[str, Any]
    onnxruntime: str
    confidence: float
    timed: bool


def _rounded(value: float) -> float:
    return round(value, 6)


def _test(row: Row, run: Run) -> dict[str, Any]:
    """The accuracy of one network on the test images, with its interval over them."""
    images = run.meta["images"]["test"]
    right = np.arange(images) < round(row.test_accuracy * images)
    found = statistics.accuracy(right[None], run.confidence)
    return {
        "accuracy": row.test_accuracy,
        "low": _rounded(found.low),
        "high": _rounded(found.high),
        "confidence": run.confidence,
        "images": images,
    }


def _latency(candidate: Candidate, row: Row, run: Run) -> dict[str, Any] | None:
    if not candidate.timings:
        return None
    mine: Timing = candidate.timings[candidate.rows.index(row)]
    return {
        "batch_size": 1,
        "milliseconds": mine.latency_ms,
        "interquartile_range": mine.iqr_ms,
        "median_over_seeds": candidate.latency_ms,
        "relative_to_eager_float32": mine.relative,
        "relative_mean_over_seeds": _rounded(candidate.relative_latency),
        "runs": mine.runs,
        "engine": mine.engine,
        "device": mine.device,
        "threads": mine.threads,
        "isa": mine.isa,
        "cpu": run.machine["cpu"],
        "from": "raw pixels" if mine.engine == "onnxruntime" else "images already normalised",
    }


def _why_not_timed(candidate: Candidate, run: Run) -> str | None:
    if candidate.timings:
        return None
    if not run.timed:
        return "onnx_bench.batch_sizes has no 1"
    return "onnx_bench has no latency of it for every seed"


def _normalize(run: Run) -> dict[str, list[float]]:
    """mean and std, one number per channel, of images scaled to 0…1."""
    name = run.settings["model"][NORMALIZE]
    channels = run.meta["image_shape"][0]
    mean, std = (
        (run.meta["mean"], run.meta["std"])
        if name == TRAINING
        else normalization.fixed(name, channels)
    )
    return {"mean": list(mean), "std": list(std)}


def _input(suffix: str, run: Run) -> dict[str, Any]:
    about = {"shape": ["n", *run.meta["image_shape"]], "dtype": "uint8", "range": [0, 255]}
    if suffix == paths.ONNX:
        return {"name": "images", **about, NORMALIZE: "inside the file"}
    how = "(pixels / 255 − mean) / std, channel by channel, in float32, before the network"
    return {**about, NORMALIZE: _normalize(run), "how": how}


def _output(run: Run) -> dict[str, Any]:
    shape = ["n", len(run.meta["classes"])]
    return {"shape": shape, "dtype": "float32", "values": "logits, in the order of data.classes"}


def _loader(row: Row) -> str:
    suffix = Path(row.model).suffix
    if suffix == paths.SAFETENSORS and row.weight_bits < FLOAT32:
        return INTEGER_LOADER
    return {
        paths.PACKED: PACKED_LOADER, paths.ONNX: ONNX_LOADER, paths.SAFETENSORS: FLOAT_LOADER
    }[suffix]  # fmt: skip


def _stages(candidate: Candidate) -> list[str]:
    """The stages that made a network, in order."""
    method = candidate.rows[0].method
    before = [stage for start, stage in EXPORTED.items() if method.startswith(start)]
    return list(dict.fromkeys(["train_baseline", *before, candidate.stage]))


def _made(candidate: Candidate, row: Row, run: Run) -> dict[str, Any]:
    stages = _stages(candidate)
    sections = dict.fromkeys([*ALWAYS, *(name for stage in stages for name in OF_STAGE[stage])])
    return {
        "stages": stages,
        "source": row.model,
        "params": {name: run.settings[name] for name in sections},
    }


def _dense(seed: int, run: Run) -> dict[str, Any]:
    """The dense float32 network of the same seed."""
    row = run.dense.rows[list(run.seeds).index(seed)]
    return {
        "source": row.model,
        "bytes": row.bytes_on_disk,
        "parameters": row.parameters,
        "macs": row.macs,
        "validation_accuracy": row.validation_accuracy,
        "test": _test(row, run),
        "latency": _latency(run.dense, row, run),
    }


def _mean(values: Sequence[float]) -> float:
    return _rounded(float(np.mean(values)))


def _shipped(candidate: Candidate, role: str, sha256: str, run: Run) -> dict[str, Any]:
    row = candidate.shipped
    source = Path(row.model)
    dense = _dense(row.seed, run)
    return {
        "file": paths.deployed_name(role, source),
        "sha256": sha256,
        "bytes": row.bytes_on_disk,
        "times_smaller_than_dense": _rounded(dense["bytes"] / row.bytes_on_disk),
        "load": _loader(row),
        "input": _input(source.suffix, run),
        "output": _output(run),
        "method": row.method,
        "words": candidate.words,
        "seed": row.seed,
        "target_sparsity": row.target_sparsity,
        "sparsity": row.sparsity,
        "weight_bits": row.weight_bits,
        "times_smaller": None if row.times_smaller == 1 else row.times_smaller,
        "parameters": row.parameters,
        "nonzero_parameters": row.nonzero_parameters,
        "macs": row.macs,
        "extra_epochs": row.extra_epochs,
        "validation": {
            "accuracy": row.validation_accuracy,
            "mean_over_seeds": _rounded(candidate.validation_accuracy),
            "drop": _rounded(candidate.drop),
            "images": run.meta["images"]["validation"],
        },
        "test": _test(row, run)
        | {"mean_over_seeds": _mean([one.test_accuracy for one in candidate.rows])},
        "latency": _latency(candidate, row, run),
        "not_timed": _why_not_timed(candidate, run),
        "dense": dense,
        "made": _made(candidate, row, run),
    }


def _near(candidate: Candidate, budgets: Budgets, run: Run) -> dict[str, Any]:
    """The numbers of a network that misses the budgets, and by what share of each it does."""
    missed = selection.overshoot(candidate, budgets, run.meta["images"]["validation"])
    return {
        "name": candidate.name,
        "words": candidate.words,
        "validation_accuracy": _rounded(candidate.validation_accuracy),
        "drop": _rounded(candidate.drop),
        "bytes": candidate.most_bytes,
        "latency_ms": candidate.latency_ms,
        "misses": {
            name: None if share is None else _rounded(share) for name, share in missed.items()
        },
    }


def describe(
    choices: Mapping[str, Choice], sha256: Mapping[str, str], budgets: Budgets, run: Run
) -> dict[str, Any]:
    """The card of the choices by role, as JSON holds it; accuracies and drops are shares.

    sha256: of the file of each role that has one.
    """
    roles = {
        role: {
            "chosen": _shipped(choice.candidate, role, sha256[role], run)
            if choice.candidate
            else None,
            "reason": choice.reason,
            "nearest": [_near(one, budgets, run) for one in choice.nearest],
        }
        for role, choice in choices.items()
    }
    return {
        "version": VERSION,
        "budgets": dict(vars(budgets)),
        **roles,
        "seeds": list(run.seeds),
        "data": {
            name: run.meta[name]
            for name in ("source", "checksum", "classes", "image_shape", "images")
        },
        "machine": {**run.machine, "onnxruntime": run.onnxruntime},
    }


def read(path: Path) -> dict[str, Any]:
    """A card back. UserError, naming file and remedy, where it is missing, torn or foreign."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["version"] == VERSION
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a model card (cut short?); {REMEDY}") from None
    if not known:
        raise UserError(f"{path}: version {found['version']}, not {VERSION}; {REMEDY}")
    return found
