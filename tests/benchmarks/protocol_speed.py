"""How much faster the stages are than the same protocol as a plain PyTorch script.

    python -m tests.benchmarks.protocol_speed [--prepared FOLDER] [--train N] [--width N]
        [--seeds N] [--busy 0 1]

Runs `plain_protocol` once per seed and the stages for the same seeds, one after the other on the
same arrays, and prints the ratios of wall time per part and the accuracies of both, means over
seeds; then all of it again while another process keeps one core busy. Without --prepared the images
are generated: CIFAR-10's shapes, ten blurry patterns under noise. Let nothing else run meanwhile:
the ratios are of one run.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import numpy as np

from stages.lib.analysis import tables
from stages.lib.core import prepared, records
from stages.lib.core.prepared import Part
from stages.lib.pruning import schedule
from tests.benchmarks.common import ROOT, parser, timed
from tests.conftest import TINY, Repository, params_with

SPARSITIES = [0.4, 0.6, 0.8, 0.9]
STEP = 0.2
PARAMS = TINY | {
    "sparsities": SPARSITIES,
    "engine": {},  # as people run it: TINY has one worker
    "data": TINY["data"] | {"source": "cifar10"},
    "training": TINY["training"] | {"batch_size": 128, "shift": 4, "mirror": True},
    "train_baseline": {"epochs": 6},
    "finetune": {"epochs": 3},
    "iterative_prune": {"target": SPARSITIES[-1], "step": STEP, "epochs_per_step": 2},
    "report": {"sparsity": SPARSITIES[-1]},
}
STAGES = {
    "baseline": ["train_baseline"],
    "sweep": ["layerwise_sweep"],
    "finetune": ["global_prune", "finetune"],
    "iterative": ["iterative_prune"],
}


def generated(count: int, random: np.random.Generator) -> Part:
    """Ten classes of 3×32×32 images: a coarse pattern each, shifted and under noise."""
    labels = np.arange(count) % 10
    patterns = np.random.default_rng(0).integers(60, 196, (10, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    images = patterns[labels] + random.normal(0, 50, (count, 3, 32, 32))
    return Part(images.clip(0, 255).astype(np.uint8), labels.astype(np.int64))


def arrays(folder: Path | None, train: int) -> tuple[dict[str, Part], list[str]]:
    """The parts to work on: a prepared data set's, or generated ones; `train` images to train on
    and a fifth of that in each other part, at most.
    """
    limits = {"train": train, "validation": train // 5, "test": train // 5}
    if folder is None:
        random = np.random.default_rng(1)
        parts = {name: generated(limit, random) for name, limit in limits.items()}
        return parts, [*"0123456789"]
    dataset = prepared.load(folder)
    parts = {}
    for name, limit in limits.items():
        part = getattr(dataset, name)
        chosen = np.sort(np.random.default_rng(0).permutation(len(part.labels))[:limit])
        parts[name] = Part(part.images[chosen], part.labels[chosen])
    return parts, dataset.classes


@contextmanager
def busy(count: int) -> Iterator[None]:
    """While it is entered, `count` processes keep a core busy each."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def of_stages(repository: Repository, seeds: list[int]) -> dict[str, float]:
    """The seconds of the stages per part, for all seeds."""
    seconds: dict[str, float] = {}
    for part, stages in STAGES.items():
        with timed(seconds, part):
            for stage in stages:
                for seed in seeds:
                    command = [sys.executable, "-m", f"stages.{stage}", "--seed", str(seed)]
                    done = repository.run(*command)
                    assert done.returncode == 0, done.stderr
        print(f"stages: {part} {seconds[part]:.1f} s", file=sys.stderr)
    return seconds


def of_the_script(folder: Path, file: Path, seeds: list[int]) -> tuple[dict, dict]:
    """The script's seconds per part, for all seeds, and mean accuracies."""
    seconds, accuracies = defaultdict(float), defaultdict(list)
    for seed in seeds:
        command = [sys.executable, "-m", "tests.benchmarks.plain_protocol", folder, file, str(seed)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
        found = json.loads(done.stdout)
        print(f"plain script: {sum(found['seconds'].values()):.1f} s", file=sys.stderr)
        for part, one in found["seconds"].items():
            seconds[part] += one
        for name, accuracy in found["accuracies"].items():
            accuracies[name].append(accuracy)
    return seconds, {name: fmean(values) for name, values in accuracies.items()}


def accuracies_of(repository: Repository, seeds: list[int]) -> dict[str, float]:
    """Mean test accuracies of the stages' networks, by the script's names for them."""
    found = defaultdict(list)
    for stage in ("train_baseline", "finetune", "iterative_prune"):
        for seed in seeds:
            for row in records.read(repository.path / f"artifacts/{stage}/seed-{seed}/rows.csv"):
                name = f"{row.method} {row.target_sparsity:g}"
                found[row.method if row.method == "baseline" else name].append(row.test_accuracy)
    return {name: fmean(values) for name, values in found.items()}


def compare(parts: dict, classes: list[str], params: dict, count: int) -> None:
    """Runs both and prints what they took. count: of other processes that are busy meanwhile."""
    seeds = params["seeds"]
    with tempfile.TemporaryDirectory() as temporary:
        repository = Repository(Path(temporary), params)
        repository.stages("probe")
        folder = repository.path / "data/prepared"
        folder.mkdir(parents=True)
        prepared.write(folder, parts, classes, "cifar10")
        file = repository.path / "plain.json"
        steps = schedule.sparsities(STEP, SPARSITIES[-1], SPARSITIES)
        file.write_text(json.dumps(params | {"steps": steps}))
        with busy(count):
            ours = of_stages(repository, seeds)
            theirs, expected = of_the_script(folder, file, seeds)
        accuracies = accuracies_of(repository, seeds)
    theirs["all"], ours["all"] = sum(theirs.values()), sum(ours.values())
    seconds = [
        (part, f"{theirs[part]:.1f}", f"{ours[part]:.1f}", f"{theirs[part] / ours[part]:.2f}")
        for part in theirs
    ]
    print(f"{len(seeds)} seeds, {count} other busy processes\n")
    print(tables.Table(("part", "plain script, s", "stages, s", "ratio"), seconds).markdown())
    networks = [(name, f"{expected[name]:.2%}", f"{accuracies[name]:.2%}") for name in expected]
    print("\n" + tables.Table(("network", "plain script", "stages"), networks).markdown() + "\n")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--prepared", type=Path, help="a data/prepared folder")
    arguments.add_argument("--train", type=int, default=4_000, help="training images")
    arguments.add_argument("--width", type=int, default=32)
    arguments.add_argument("--seeds", type=int, default=2, help="how many")
    arguments.add_argument(
        "--busy", type=int, nargs="+", default=[0, 1], help="other busy processes, run by run"
    )
    options = arguments.parse_args()
    parts, classes = arrays(options.prepared, options.train)
    asked = {"seeds": [*range(options.seeds)], "model": {"width": options.width}}
    for count in options.busy:
        compare(parts, classes, params_with(PARAMS | asked), count)


if __name__ == "__main__":
    main()
