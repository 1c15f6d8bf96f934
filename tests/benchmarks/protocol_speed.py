"""How much faster the stages are than the same protocol as a plain PyTorch script.

    python -m tests.benchmarks.protocol_speed [--prepared FOLDER] [--train N] [--width N]

Runs `plain_protocol` and the stages one after the other on the same arrays, and prints the ratios
of wall time per part and the accuracies of both. Without --prepared the images are generated:
CIFAR-10's shapes, ten blurry patterns under noise. Let nothing else run meanwhile: the ratios are
of one run.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

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


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--prepared", type=Path, help="a data/prepared folder")
    arguments.add_argument("--train", type=int, default=10_000, help="training images")
    arguments.add_argument("--width", type=int, default=32)
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    parts, classes = arrays(options.prepared, options.train)
    asked = {"compute": {"threads": options.threads}, "model": {"width": options.width}}
    params = params_with(PARAMS | asked)
    steps = schedule.sparsities(STEP, SPARSITIES[-1], SPARSITIES)
    with tempfile.TemporaryDirectory() as temporary:
        repository = Repository(Path(temporary), params)
        folder = repository.path / "data/prepared"
        folder.mkdir(parents=True)
        prepared.write(folder, parts, classes, "cifar10")
        file = repository.path / "plain.json"
        file.write_text(json.dumps(params | {"steps": steps}))

        ours: dict[str, float] = {}
        for part, stages in STAGES.items():
            with timed(ours, part):
                for stage in stages:
                    command = [sys.executable, "-m", f"stages.{stage}", "--seed", "0"]
                    done = repository.run(*command)
                    assert done.returncode == 0, done.stderr
            print(f"stages: {part} {ours[part]:.1f} s", file=sys.stderr)
        command = [sys.executable, "-m", "tests.benchmarks.plain_protocol", folder, file]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
        plain = json.loads(done.stdout)

        rows = []
        for stage in ("train_baseline", "finetune", "iterative_prune"):
            rows += records.read(repository.path / f"artifacts/{stage}/seed-0/rows.csv")
    theirs = plain["seconds"] | {"all": sum(plain["seconds"].values())}
    ours["all"] = sum(ours.values())
    seconds = [
        (part, f"{theirs[part]:.1f}", f"{ours[part]:.1f}", f"{theirs[part] / ours[part]:.2f}")
        for part in theirs
    ]
    print(tables.Table(("part", "plain script, s", "stages, s", "ratio"), seconds).markdown())
    accuracies = []
    for row in rows:
        name = row.method if row.method == "baseline" else f"{row.method} {row.target_sparsity:g}"
        accuracies.append((name, f"{plain['accuracies'][name]:.2%}", f"{row.test_accuracy:.2%}"))
    print("\n" + tables.Table(("network", "plain script", "stages"), accuracies).markdown())


if __name__ == "__main__":
    main()
