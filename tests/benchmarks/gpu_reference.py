"""The reference run on a GPU: whatever needs one, in one command and within minutes.

    python -m tests.benchmarks.gpu_reference --images cifar10-jpeg.tar.xz --out FOLDER [--minutes 8]

--images: an archive that holds train/CLASS/ and test/CLASS/. Runs the stages without DVC. First the
protocol: the stages of each seed in a process of its own, all seeds and a teacher three times as
wide side by side. Then, for one
seed and with as many epochs as the minutes allow, the files to deploy: packed files and the control
trained as long, and networks with fewer filters. Then, with nothing else
running, what is timed. FOLDER gets for each of them params.yaml and artifacts (without networks
that are only masked), the seconds of every stage, and the speed of training.

To see a report, in a clone: copy params.yaml and artifacts of FOLDER/protocol into it, prepare the
same images with `python -m stages.prepare_data`, then run `python -m stages.report`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from stages.lib.core import paths, pipeline
from stages.lib.core.params import Training
from stages.lib.evaluation import counting, device
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.samples import Data, Samples
from stages.lib.models import registry
from stages.lib.training import loop
from tests.benchmarks.common import parser
from tests.benchmarks.protocol_speed import generated
from tests.conftest import TINY, copy_project, params_with, write_params

IMAGES = "data/images"
SETTING = {
    "sparsities": [0.2, 0.4, 0.6, 0.8, 0.95],
    "engine": {"workers": 1},
    "data": {
        "source": "image_folder", "root": IMAGES, "image_size": 32, "validation_images": 5000,
    },
    "model": {"width": 32},
    "training": {"batch_size": 256, "shift": 4, "mirror": True},
    "train_baseline": {"epochs": 60, "learning_rate": 0.2},
    "teacher": {"name": "convnet", "width": 96, "epochs": 30, "learning_rate": 0.2},
    "finetune": {"learning_rate": 0.1},
    "iterative_prune": {"target": 0.95, "learning_rate": 0.1},
    "controls": {"equal_budget": [0.8]},
    "structured_prune": {
        "sparsities": [0.6], "scopes": ["global"], "multiple_of": 8, "learning_rate": 0.1,
    },
    "compress": {"arms": ["both"], "times_smaller": [50], "learning_rate": 0.1, "epochs": 5},
    "dtype_bench": {"batch_sizes": [1, 64, 256], "resnet152_image_size": 224, "seconds": 0.3},
    "latency_bench": {"batch_sizes": [1, 64, 256]},
    "export_onnx": {"structured_sparsities": "all"},
}  # fmt: skip
# The files to deploy: by folder, the stage that makes them and its params.
SIZES = {"times_smaller": [20, 50, 80], "learning_rate": 0.1, "distillation": 0.7}
DEPLOY = {
    "packed": ("compress", SIZES | {"arms": ["both"]}),
    "control": ("compress", SIZES | {"arms": ["baseline"]}),
    "filters": (
        "structured_prune",
        {"sparsities": [0.65, 0.75], "learning_rate": 0.15, "distillation": 0.7},
    ),
}
# What an epoch of all of these takes, in epochs of the baseline: for three sizes, the control of
# three sizes, and two networks, each taught.
DEPLOY_COST = 3 * 2.0 + 3 * 1.6 + 2 * 1.6
# As little of everything as still runs to the end.
SMALL = {
    "engine": {"workers": 1},
    "data": {"source": "image_folder", "root": IMAGES, "image_size": 8, "validation_images": 12},
    "compute": {"device": "auto"},
}
# Runs stages one after the other in one process: starting torch on a GPU takes seconds. A stage
# that fails does not end the others.
RUN = """
import runpy, sys, time, traceback
seed, *names = sys.argv[1:]
for name in names:
    sys.argv = ["", *(["--seed", seed] if seed else [])]
    start, failed = time.perf_counter(), 0
    try:
        runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
    except BaseException:
        traceback.print_exc()
        failed = 1
    print(f"\\n#{name},{seed},{time.perf_counter() - start:.1f},{failed}", flush=True)
"""
# Of the time left for the files to deploy, the share that is planned; and the seconds that the
# stages after it take.
PLANNED, RESERVE = 0.85, 150
KEPT = ("train_baseline", "structured_prune", "compress", "export_onnx", "deploy")


@dataclass
class Run:
    """A run in a folder of its own. seconds: by stage and seed. failed: the stages that failed."""

    folder: Path
    log: Path
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def start(self, names: Sequence[str], seed: int | str = "") -> subprocess.Popen:
        """Starts a process that runs the stages in this order."""
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(seed), *names], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait(self, processes: Sequence[subprocess.Popen]) -> None:
        """Waits for the processes and notes what they told."""
        for process in processes:
            text, _ = process.communicate()
            with self.log.open("a", encoding="utf-8") as log:
                log.write(text)
            for line in text.splitlines():
                if line.startswith("#"):
                    name, seed, seconds, failed = line[1:].split(",")
                    self.seconds[f"{name} {seed}".strip()] = float(seconds)
                    self.failed += [f"{name} {seed}".strip()] if int(failed) else []
                    print(f"{name} {seed}: {seconds} s{' FAILED' * int(failed)}", flush=True)

    def stages(self, names: Sequence[str], seeds: Iterable[int | str] = ("",)) -> None:
        """Runs the stages, the seeds side by side."""
        self.wait([self.start(names, seed) for seed in seeds])

    def finish(self, out: Path, below: Path = paths.ARTIFACTS) -> None:
        """Copies what the report and a reader need: no network that is only masked."""

        def left_out(directory: str, names: list[str]) -> list[str]:
            stage = Path(directory).relative_to(self.folder / paths.ARTIFACTS).parts[:1]
            keep = not stage or stage[0] in KEPT
            return [
                name for name in names
                if name.endswith(paths.SAFETENSORS) and "predictions" not in name and not keep
            ]  # fmt: skip

        shutil.copytree(self.folder / below, out / below, ignore=left_out)
        shutil.copyfile(self.folder / paths.PARAMS, out / paths.PARAMS)
        text = json.dumps(self.seconds, indent=1)
        (out / "seconds.json").write_text(text, encoding="utf-8")


def seeded() -> list[str]:
    """The stages that run for each seed, in the pipeline's order."""
    stages = pipeline.stages()
    return [name for name in stages if "matrix" in stages[name]]


def project(folder: Path, params: dict, images: Path) -> None:
    """A copy of the project's code with these params and images."""
    copy_project(folder)
    write_params(folder, params)
    (folder / IMAGES).mkdir(parents=True)
    subprocess.run(["tar", "-xf", images.resolve(), "-C", folder / IMAGES], check=True)


def training_data(count: int, where: torch.device) -> Data:
    """Images of CIFAR-10's shape on the device; a tenth of them for validation."""
    normalize = Normalize([0.5] * 3, [0.25] * 3, where)
    parts = [
        Samples(*(torch.from_numpy(array).to(where) for array in part), normalize)
        for part in (generated(size, np.random.default_rng(0)) for size in (count, count // 10))
    ]
    return Data(*parts, parts[1], classes=[*"0123456789"], image_shape=(3, 32, 32))


def peak(where: torch.device, size: int) -> float:
    """bfloat16 operations a second of a matrix product of this size, the best of five."""
    left, right = (torch.randn(size, size, device=where, dtype=torch.bfloat16) for _ in range(2))
    wait = torch.cuda.synchronize if where.type == "cuda" else (lambda: None)
    best = float("inf")
    for _ in range(5):
        wait()
        start = time.perf_counter()
        left @ right
        wait()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def speeds(width: int, count: int, epochs: int, batch_sizes: Sequence[int], size: int) -> Iterator:
    """Trains a ConvNet, eager and replayed from a CUDA graph, twice each: images a second, the
    share of the bfloat16 peak, and whether all weights are equal to the bit.

    count: training images. size: of the matrix product that gives the peak.
    """
    where = device.configure("auto", 1)
    precision, most = device.training_dtype("auto", where), peak(where, size)
    data = training_data(count, where)
    model = device.place(
        registry.build_seeded(registry.architecture("convnet", width, 3, 10, [32, 32]), 0), where
    )
    # Three passes, forward and backward, of a product and a sum each.
    operations = 6 * counting.macs(model, data.image_shape)
    for batch_size in batch_sizes:
        options = Training(
            batch_size=batch_size, momentum=0.9, weight_decay=5e-4, shift=4, mirror=True
        )
        weights = []
        for replayed in (False, True, False, True):
            start = time.perf_counter()
            trained, _ = loop.fit(
                model, data, options, epochs=epochs, learning_rate=0.05, precision=precision,
                generator=torch.Generator().manual_seed(0), replayed=replayed,
            )  # fmt: skip
            rate = count * epochs / (time.perf_counter() - start)
            weights.append(torch.cat([weight.flatten() for weight in trained.parameters()]))
            yield {
                "batch_size": batch_size,
                "replayed": replayed and where.type == "cuda",
                "images_per_second": round(rate),
                "share_of_peak": round(rate * operations / most, 5),
                "peak_tflops": round(most / 1e12, 1),
                "equal_to_first": torch.equal(weights[0], weights[-1]),
            }


def deploy(run: Run, out: Path, params: dict, epochs: int) -> list[Run]:
    """Makes the files to deploy, side by side, each kind in a copy of the run's folder; and
    meanwhile the ONNX files of the run, which need no GPU.
    """
    runs, processes = [], []
    exports = [run.start(["export_onnx"], seed) for seed in params["seeds"]]
    for name, (stage, asked) in DEPLOY.items():
        folder = run.folder.with_name(f"{run.folder.name}-{name}")
        shutil.copytree(run.folder, folder, copy_function=os.link)
        shutil.rmtree(folder / paths.stage_directory(stage))
        (folder / paths.PARAMS).unlink()
        write_params(
            folder, params | {"seeds": [0], stage: params[stage] | asked | {"epochs": epochs}}
        )
        runs.append(Run(folder, out.with_name(name) / "log.txt"))
        runs[-1].log.parent.mkdir(parents=True)
        processes.append(runs[-1].start([stage], 0))
    for each, process, (stage, _) in zip(runs, processes, DEPLOY.values(), strict=True):
        each.wait([process])
        each.finish(each.log.parent, paths.stage_directory(stage))
    run.wait(exports)
    return runs


def main() -> None:
    start = time.perf_counter()
    arguments = parser(__doc__)
    arguments.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    arguments.add_argument("--images", type=Path, required=True, help="the archive of images")
    arguments.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments.add_argument("--minutes", type=float, default=8)
    arguments.add_argument("--small", action="store_true", help="a setting for a CPU and seconds")
    arguments.add_argument("--seeds", type=int, default=3)
    options = arguments.parse_args()
    params = TINY if options.small else params_with(SETTING)
    for section, values in (SMALL if options.small else {}).items():
        params = params | {section: params[section] | values}
    params["seeds"] = list(range(options.seeds))
    out = options.out / "protocol"
    out.mkdir(parents=True)
    sized = (64, 64, 1, [32], 64) if options.small else (32, 45_000, 2, [128, 256], 8192)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        run = Run(Path(folder) / "run", out / "log.txt")
        project(run.folder, params, options.images)
        run.stages(["probe", "prepare_data", "layer_bench"])
        names = [name for name in seeded() if name != "export_onnx"]
        untaught = names[: names.index("structured_prune")]
        teacher = run.start(["train_teacher"])
        run.stages(untaught, params["seeds"])
        run.wait([teacher])
        run.stages(names[len(untaught) :], params["seeds"])
        lines = list(speeds(*sized))
        text = json.dumps(lines, indent=1)
        (options.out / "speed.json").write_text(text, encoding="utf-8")
        print(text, flush=True)
        left = 60 * options.minutes - RESERVE - (time.perf_counter() - start)
        fitting = PLANNED * left * lines[-1]["images_per_second"] / sized[1]
        epochs = 1 if options.small else max(1, int(fitting / DEPLOY_COST))
        print(f"{time.perf_counter() - start:.0f} s; to deploy: {epochs} epochs", flush=True)
        runs = [run, *deploy(run, out, params, epochs)]
        run.stages(["dtype_bench"], params["seeds"][:1])
        run.stages(["latency_bench", "package"])
        run.finish(out)
        failed = [name for one in runs for name in one.failed]
    print(f"all: {time.perf_counter() - start:.0f} s")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see log.txt in {options.out}")


if __name__ == "__main__":
    main()
