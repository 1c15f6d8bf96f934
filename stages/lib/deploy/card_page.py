"""The folder's README: a model card in the form of Hugging Face, with results and intervals."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from stages.lib.analysis import tables
from stages.lib.analysis.tables import Table
from stages.lib.core import engines, paths

ROLES = ("fastest", "smallest")
WHAT = {
    paths.CARD_PAGE: "this page",
    paths.MODEL_CARD: "the same for programs",
    paths.LABELS: "the classes, in the order of the logits",
    paths.PREDICT: "photos in, labels out",
    paths.UNPACK: "unpacks weights",
    paths.REQUIREMENTS.name: "what the programs need, in the versions that were measured",
    paths.SAMPLE: "the right answers for the sample",
    paths.SAMPLE_PHOTO: "a photo",
    paths.SAMPLE_PIXELS: "what the network must see of it",
}


def _results(card: Mapping[str, Any], roles: Mapping[str, Any]) -> str:
    """The table of results. A number that is not known is left out."""
    lines = []
    for name, one in {"baseline": card["baseline"], **roles}.items():
        is_baseline, latency = name == "baseline", "not timed"
        if one["latency_ms"] is not None:
            engine = engines.ENGINES[one["engine"]].title
            latency = f"{tables.milliseconds(one['latency_ms'])} ({engine})"
        lines.append(
            [
                name if is_baseline else one["file"],
                one["words"],
                tables.estimate(*(one["test"][end] for end in ("accuracy", "low", "high"))),
                "" if is_baseline else tables.loss(one["validation_loss"]),
                f"{one['bytes']:,}",
                tables.factor(one["times_smaller"]),
                latency,
                tables.factor(one["speedup"]) if one["speedup"] else "",
            ]
        )
    headers = (
        "file", "what", "test accuracy", "loss on validation, points", "bytes", "smaller",
        "latency, ms", "faster",
    )  # fmt: skip
    return Table(headers, lines, left=2).markdown()


def _files(folder: Path, roles: Mapping[str, Any]) -> str:
    """The table of the folder's files."""
    what = dict(WHAT)
    for role, one in roles.items():
        graph = f"the {role} network without its weights, for ONNX Runtime"
        names = f"names and shapes of the tensors of {one['file']}, for unpack.py"
        what |= {one["onnx"]["file"]: graph, one["onnx"]["layout"]: names}
        what[one["file"]] = f"the {role} file"
    there = {paths.CARD_PAGE, *(file.name for file in folder.iterdir())}
    lines = [[name, told] for name, told in what.items() if name in there]
    return Table(("file", "what"), lines, left=2).markdown()


def _budgets(budgets: Mapping[str, float]) -> str:
    units = {
        "max_accuracy_drop": lambda limit: (
            f"at most {100 * limit:g} percentage point{'' if limit == 0.01 else 's'} of validation"
            " accuracy lost"
        ),
        "max_bytes": lambda limit: f"at most {limit:,} bytes",
        "max_latency_ms": lambda limit: f"at most {limit:g} ms for one image",
    }
    return ", ".join(units[name](limit) for name, limit in budgets.items())


def _machine(machine: Mapping[str, Any], timed: Sequence[Mapping[str, Any]]) -> str:
    """What the latencies were measured on. timed: what the card says of each network."""
    threads = {one["threads"] for one in timed if one["threads"]}
    used = f"{tables.times(min(threads), 'thread')} of " if threads else ""
    versions = [
        f"{engine.title} {machine[name]}"
        for name, engine in engines.ENGINES.items()
        if name in {one["engine"] for one in timed}
    ]
    return ", ".join([f"{used}{machine['cpu']}", *versions])


def render(card: Mapping[str, Any], folder: Path, candidates: int, of_engine: str) -> str:
    """The page.

    card: of `model_card.describe`. `onnx` of a chosen file names what runs it, or has a note why
        nothing does.
    folder: with all other files in place.
    candidates: how many networks the files were chosen from.
    of_engine: what of the speed is not compression's (`selection_file.of_engine`).
    """
    # The fastest first, as predict.py takes them.
    roles = {role: card[role]["chosen"] for role in ROLES if card[role]["chosen"]}
    runs = [one["onnx"] for one in roles.values() if one["onnx"]["file"]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "json": lambda value: json.dumps(value, ensure_ascii=False),
        "times": tables.times,
        "count": tables.count,
        "percent": tables.percent,
        "text": tables.escaped,
    }
    return environment.get_template(paths.CARD_TEMPLATE).render(
        card=card,
        roles=roles,
        missing={role: card[role]["reason"] for role in ROLES if role not in roles},
        results=_results(card, roles),
        files=_files(folder, roles),
        budgets=_budgets(card["budgets"]),
        machine=_machine(card["machine"], [card["baseline"], *roles.values()]),
        candidates=candidates,
        of_engine=of_engine,
        runs=[one["file"] for one in runs],
        unpacked=[one["unpacked"] for one in runs if one["unpacked"]],
        photo=paths.SAMPLE_PHOTO,
    )
