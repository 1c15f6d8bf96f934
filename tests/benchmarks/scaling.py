"""How much faster a run would be with more workers: an estimate from measured times of its arms.

    python -m tests.benchmarks.scaling [--params FILE] [--workers 8 64 512] [--longer 1 100]
        [--times TIMES.json] [STAGE …]

Runs the pipeline, or these stages of it, once in a temporary copy, all arms one after the other,
and times each arm, what else a stage does, and what it takes to start a stage (DVC and Python) and
to import torch. With --times it writes them to that file, or reads them if it exists. Then it lays
the arms out in pools: all arms whose inputs are there are done together, by free workers that take
the next one in order. --longer multiplies the times of arms, as larger images or networks do.

Seconds are those of the CPU with one thread, so other work on the machine counts little. An
estimate and no measurement: workers are as fast as the one that was measured, and moving files
between machines takes no time.
"""

import heapq
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from stages.lib.analysis import tables
from stages.lib.core import pipeline
from tests.benchmarks.common import ROOT, parser
from tests.conftest import Repository

# Runs all stages in one process, and writes the seconds of each arm and of each stage as a whole.
TIMED = """
import json, runpy, sys, time
import stages.lib.evaluation.context
from stages.lib.arms import worker
from stages.lib.core import params, paths, pipeline
file, arms, whole, plain = sys.argv[1], {}, {}, worker.run
entries = pipeline.stages(paths.PIPELINES[::-1])
names = sys.argv[2:] or list(entries)
def timed(task):
    start = time.process_time()
    result = plain(task)
    arms.setdefault(task.stage, []).append(time.process_time() - start)
    return result
worker.run, seeds = timed, params.read("seeds").seeds
for name in names:
    per_seed, matrix = pipeline.declared(name).per_seed, "matrix" in entries[name]
    for seed in (seeds if matrix else seeds[:1]) if per_seed else [None]:
        start = time.process_time()
        sys.argv = [""] if seed is None else ["", "--seed", str(seed)]
        runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
        whole.setdefault(name, []).append(time.process_time() - start)
json.dump([arms, whole], open(file, "w"))
"""
# A short stage with arms, and one without: starting the first takes an import of torch longer.
SHORT, EMPTY = "global_prune", "train_teacher"
# Without arms, and yet with networks.
TORCH = ("dtype_bench", "latency_bench", "package")


class Times(NamedTuple):
    """Seconds of one run.

    arms: of each stage with arms, in order, for all seeds.
    serial: of each stage without arms, and what a stage does beside its arms, for all seeds.
    start: of one stage for one seed: DVC and Python.
    torch: its import, by the workers of a pool or by a stage.
    starts: how many stages are started, one for each seed.
    """

    arms: Mapping[str, Sequence[float]]
    serial: Mapping[str, float]
    start: float
    torch: float
    starts: int


def measure(params: dict, stages: Sequence[str]) -> Times:
    """The times of a run with these params, with one worker."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder) / "repository", params)
        repository.change("engine.workers", 1)
        repository.change("engine.ahead", False)
        file = Path(folder) / "times.json"
        done = repository.run(sys.executable, "-c", TIMED, str(file), *stages)
        assert done.returncode == 0, done.stderr
        arms, whole = json.loads(file.read_text())
        empty = started(repository, EMPTY)
        short = started(repository, f"{SHORT}@{params['seeds'][0]}") - whole[SHORT][0]
    return Times(
        arms,
        {name: sum(each) - sum(arms.get(name, [])) for name, each in whole.items()},
        empty,
        max(0.0, short - empty),
        sum(map(len, whole.values())),
    )


def started(repository: Repository, stage: str) -> float:
    """The seconds in which DVC runs a stage again."""
    before = os.times()
    repository.repro("--force", "--single-item", stage)
    after = os.times()
    seconds = after.children_user + after.children_system
    return seconds - before.children_user - before.children_system


def pools(arms: Mapping[str, Sequence[float]]) -> list[list[float]]:
    """The arms that are done together, in the order in which workers take them: those of stages
    that read nothing of a later pool, the last stage's first. arms: by stage.
    """
    declared, found, place = pipeline.everything(), [], {}
    for name in filter(arms.__contains__, declared):
        reads = set(declared[name].deps(0))
        made = [number for other, number in place.items() if reads & {*declared[other].outs(0)}]
        place[name] = max(made, default=-1) + 1
        found += [[]] * (place[name] == len(found))
        found[place[name]] = [*arms[name], *found[place[name]]]
    return found


def makespan(arms: Sequence[float], workers: int) -> float:
    """The time in which so many workers do the arms, each taking the next one when it is free
    (Graham, 1966: at most the mean load plus the longest arm).
    """
    free = [0.0] * min(workers, max(1, len(arms)))
    for seconds in arms:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


class Estimate(NamedTuple):
    """Seconds of a run.

    arms: with at least one worker busy.
    chains: of these, the longest arms of the pools, which no number of workers shortens.
    """

    arms: float
    chains: float
    serial: float
    starts: float

    @property
    def all(self) -> float:
        return self.arms + self.serial + self.starts


def estimate(times: Times, workers: int, longer: float = 1) -> Estimate:
    """longer: times of arms are multiplied by it."""
    together = pools(times.arms)
    imports = len(together) + len({*TORCH} & times.serial.keys())
    return Estimate(
        arms=longer * sum(makespan(arms, workers) for arms in together),
        chains=longer * sum(map(max, together)),
        serial=sum(times.serial.values()),
        starts=times.starts * times.start + imports * times.torch,
    )


def binding(found: Estimate) -> str:
    """What takes most of a run's time."""
    parts = {
        "longest arms": found.chains,
        "arms in line": found.arms - found.chains,
        "stages without arms": found.serial,
        "starting stages": found.starts,
    }
    name = max(parts, key=parts.get)
    return f"{name} ({parts[name] / found.all:.0%})"


def table(times: Times, workers: Sequence[int], longer: float) -> str:
    """A line for each number of workers, as Markdown."""
    alone = estimate(times, 1, longer)
    lines = []
    for count in (1, *workers):
        found = estimate(times, count, longer)
        seconds = [f"{one:.0f}" for one in (found.all, found.arms, found.serial, found.starts)]
        lines.append((count, *seconds, f"{alone.all / found.all:.1f}", binding(found)))
    heads = ("workers", "all, s", "arms", "no arms", "starts", "speed-up", "what binds")
    return tables.Table(heads, lines).markdown()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--params", type=Path, default=ROOT / "params.yaml")
    arguments.add_argument("--workers", type=int, nargs="+", default=[8, 64, 512])
    arguments.add_argument("--longer", type=float, nargs="+", default=[1, 100])
    arguments.add_argument("--times", type=Path)
    arguments.add_argument("stages", metavar="STAGE", nargs="*")
    options = arguments.parse_args()
    if options.times and options.times.exists():
        times = Times(**json.loads(options.times.read_text()))
    else:
        params = yaml.safe_load(options.params.read_text(encoding="utf-8"))
        times = measure(params, options.stages)
        if options.times:
            options.times.write_text(json.dumps(times._asdict()))
    counts = {name: len(arms) for name, arms in times.arms.items()}
    longest = max((max(arms), name) for name, arms in times.arms.items())
    print(
        f"{sum(counts.values())} arms of {len(counts)} stages, {times.starts} stages started, each"
        f" in {times.start:.1f} s, torch imported in {times.torch:.1f} s; the longest arm takes"
        f" {longest[0]:.1f} s ({longest[1]})\n"
    )
    for longer in options.longer:
        print(f"arms {longer:g} times as long\n\n{table(times, options.workers, longer)}\n")


if __name__ == "__main__":
    main()
