"""How long each stage took, its place in the pipeline, and what is left of a run.

The order of dvc.yaml is the order in which DVC runs the stages.
"""

from collections.abc import Mapping
from contextlib import suppress
from statistics import fmean, median
from typing import Any

from stages.lib.core import outputs, params, paths, pipeline
from stages.lib.core.errors import UserError
from stages.lib.core.pipeline import Declared
from stages.lib.core.progress import duration

# The name of a stage, and its seed if it has one.
Run = tuple[str, int | None]
# Seconds of a stage that does not train, as long as none has run here.
FIRST = 3.0


def key(run: Run) -> str:
    """As DVC calls it: train_baseline@0."""
    name, seed = run
    return name if seed is None else f"{name}@{seed}"


def _is_matrix(declared: Declared) -> bool:
    """Whether the stage runs once for each seed."""
    return "matrix" in declared.entry


def plan(declared: Mapping[str, Declared], seeds: list[int]) -> list[Run]:
    """All runs of the pipeline, in order."""
    return [
        (name, seed)
        for name, one in declared.items()
        for seed in (seeds if _is_matrix(one) else [None])
    ]


def epochs(everything: Any) -> dict[str, float]:
    """The epochs that each stage trains for one seed. everything: all sections of the params."""
    sections, count = everything, len(everything.sparsities)
    iterative, structured, compress = (
        sections.iterative_prune, sections.structured_prune, sections.compress,
    )  # fmt: skip
    steps = len({*sections.sparsities, iterative.target}) if count else 0
    steps *= iterative.epochs_per_step
    asked = sections.controls.equal_budget
    equal = count if isinstance(asked, str) else len(asked)
    pruned = [name for name in sections.controls.finetuned if name != "baseline"]
    teacher = sections.teacher
    return {
        "train_baseline": sections.train_baseline.epochs,
        "train_teacher": 0 if teacher.name == params.BASELINE else teacher.epochs,
        "finetune": count * sections.finetune.epochs,
        "iterative_prune": steps,
        "controls": (1 + count * len(pruned)) * sections.finetune.epochs
        + steps * (1 + (equal + 1) / 2),
        "structured_prune": len(structured.sparsities) * len(structured.scopes) * structured.epochs,
        "compress": len(compress.arms) * len(compress.times_smaller) * compress.epochs,
    }


def _expected(run: Run, took: Mapping[str, float], trained: Mapping[str, float]) -> float:
    """The seconds that a run may take: as last time, or as another seed, or by its epochs."""
    name = run[0]
    if key(run) in took:
        return took[key(run)]
    known: dict[str, list[float]] = {}
    for one, seconds in took.items():
        known.setdefault(one.partition("@")[0], []).append(seconds)
    if name in known:
        return fmean(known[name])
    others = [fmean(values) for one, values in known.items() if one not in trained]
    # The median, because a run whose workers did other stages' arms took long for them.
    start = max(FIRST, median(others)) if others else FIRST
    paces = [
        (fmean(values) - min(start, fmean(values))) / trained[one]
        for one, values in known.items()
        if trained.get(one)
    ]
    return start + (fmean(paces) if paces else 0) * trained.get(name, 0)


def _will_run(run: Run, declared: Mapping[str, Declared], todo: list[Run]) -> list[Run]:
    """Those of the runs that DVC will probably do: without outputs, or made of what this stage
    makes, for any seed.
    """
    made = set() if declared[run[0]].entry.get("always_changed") else {run[0]}
    found = []
    for name, seed in todo:
        reads = {dep.parts for dep in declared[name].deps(seed)}
        for stage in list(made):
            wrote = {out.parts[:2] for out in declared[stage].outs(seed)}
            if any(parts[:2] in wrote for parts in reads):
                made.add(name)
        if name in made or not all(out.exists() for out in declared[name].outs(seed)):
            found.append((name, seed))
    return found


def line(run: Run, result: str, seconds: float) -> str:
    """The line of a stage that is done: its result, its time, its place, and about what is left.
    Remembers the time.
    """
    name, everything = run[0], params.read(*params.SECTIONS)
    declared = pipeline.everything()
    run = name, run[1] if _is_matrix(declared[name]) else None
    took = _remembered() | {key(run): round(seconds, 1)}
    with suppress(OSError, UserError):  # no reason to fail
        outputs.write_json(paths.SECONDS, took)
    runs = plan(declared, everything.seeds)
    place = runs.index(run) + 1
    trained = epochs(everything)
    left = sum(_expected(one, took, trained) for one in _will_run(run, declared, runs[place:]))
    told = [result, duration(seconds), f"{place} of {len(runs)}"]
    if left:
        told.append(f"about {duration(left)} left")
    return f"{key(run):<18}  " + ", ".join(filter(None, told))


def _remembered() -> dict[str, float]:
    """The seconds that runs took last, as far as known."""
    try:
        found = outputs.read_json(paths.SECONDS, "")
    except UserError:
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in known if isinstance(value, (int, float))}
