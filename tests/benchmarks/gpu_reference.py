"""The reference run on a GPU: whatever needs one, in one command and within minutes.

    python -m tests.benchmarks.gpu_reference --images cifar10-jpeg.tar.xz --out FOLDER [--minutes 8]

--images: an archive that holds train/CLASS/ and test/CLASS/. Runs the stages without DVC, those of
each seed in a process of its own, all seeds side by side; then, with nothing else running, what is
timed; then `compress` with as many epochs as the minutes allow. FOLDER gets params.yaml, artifacts
without the networks that are only masked, the seconds of every stage, and the speed of training.

To see the report, in a clone: copy FOLDER's params.yaml and artifacts into it, prepare the same
images with `python -m stages.prepare_data`, then run `python -m stages.report`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from stages.lib.core import paths, pipeline
from stages.lib.core.params import Training
from stages.lib.evaluation import counting, device
from stages.lib.evaluation.images import Normalize
from stages.lib.evaluation.samples import Data, Samples
from stages.lib.models import registry
from stages.lib.training import loop
from tests.benchmarks.common import ROOT, parser
from tests.benchmarks.protocol_speed import generated
from tests.conftest import PROJECT, TINY, params_with

IMAGES = "data/images"
SETTING = {
    "sparsities": [0.2, 0.4, 0.6, 0.8, 0.9, 0.95],
    "data": {
        "source": "image_folder", "root": IMAGES, "image_size": 32, "validation_images": 5000,
    },
    "model": {"width": 32},
    "training": {"batch_size": 128, "shift": 4, "mirror": True},
    "train_baseline": {"epochs": 60},
    "iterative_prune": {"target": 0.95},
    "structured_prune": {"scopes": ["global"], "multiple_of": 8, "epochs": 10},
    "compress": {"arms": ["both"], "times_smaller": [20, 35, 50, 80]},
    "dtype_bench": {"batch_sizes": [1, 64, 256], "resnet152_image_size": 224, "seconds": 0.3},
    "latency_bench": {"batch_sizes": [1, 64, 256], "seconds": 0.1},
    "export_onnx": {"structured_sparsities": "all"},
}  # fmt: skip
# As little of everything as still runs to the end.
SMALL = {
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
# Of the minutes, what is kept for the stages after `compress`.
RESERVE = 45
# An epoch of `compress` takes about as long as this many of `finetune`: a teacher computes too.
COMPRESS_EPOCH = 1.8
KEPT = ("train_baseline", "structured_prune", "compress", "export_onnx", "deploy")


@dataclass
class Run:
    """A run in a folder of its own. seconds: by stage and seed. failed: the stages that failed."""

    folder: Path
    log: Path
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def stages(self, names: Sequence[str], seeds: Iterable[int | str] = ("",)) -> None:
        """Runs the stages in this order, for each seed in a process of its own."""
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(seed), *names], cwd=self.folder, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for seed in seeds
        ]  # fmt: skip
        for run in runs:
            text, _ = run.communicate()
            with self.log.open("a", encoding="utf-8") as log:
                log.write(text)
            for line in text.splitlines():
                if line.startswith("#"):
                    name, seed, seconds, failed = line[1:].split(",")
                    self.seconds[name, seed] = float(seconds)
                    self.failed += [f"{name} {seed}".strip()] if int(failed) else []
                    print(f"{name} {seed}: {seconds} s{' FAILED' * int(failed)}", flush=True)


def seeded() -> list[str]:
    """The stages that run for each seed, in the pipeline's order, without `compress`."""
    stages = pipeline.stages()
    return [name for name in stages if "matrix" in stages[name] and name != "compress"]


def project(folder: Path, params: dict, images: Path) -> None:
    """A copy of the project's code with these params and images."""
    for name in PROJECT:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    write(folder, params)
    (folder / IMAGES).mkdir(parents=True)
    subprocess.run(["tar", "-xf", images.resolve(), "-C", folder / IMAGES], check=True)


def write(folder: Path, params: dict) -> None:
    """Writes the params of a run."""
    text = yaml.safe_dump(params, sort_keys=False)
    (folder / paths.PARAMS).write_text(text, encoding="utf-8")


def training_data(count: int, where: torch.device) -> Data:
    """Images of CIFAR-10's shape on the device; a tenth of them for validation."""
    import numpy as np

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


def collect(folder: Path, out: Path) -> None:
    """Copies what the report and a reader need: no network that is only masked."""

    def left_out(directory: str, names: list[str]) -> list[str]:
        stage = Path(directory).relative_to(folder / paths.ARTIFACTS).parts[:1]
        keep = not stage or stage[0] in KEPT
        return [
            name for name in names
            if name.endswith(paths.SAFETENSORS) and "predictions" not in name and not keep
        ]  # fmt: skip

    shutil.copytree(folder / paths.ARTIFACTS, out / paths.ARTIFACTS, ignore=left_out)
    shutil.copyfile(folder / paths.PARAMS, out / paths.PARAMS)
    meta = paths.PREPARED / paths.META
    (out / meta).parent.mkdir(parents=True)
    shutil.copyfile(folder / meta, out / meta)


def main() -> None:
    arguments = parser(__doc__)
    arguments.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    arguments.add_argument("--images", type=Path, required=True, help="the archive of images")
    arguments.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments.add_argument("--minutes", type=float, default=8)
    arguments.add_argument("--small", action="store_true", help="a setting for a CPU and seconds")
    arguments.add_argument("--seeds", type=int, default=3)
    options = arguments.parse_args()
    start = time.perf_counter()
    params = TINY if options.small else params_with(SETTING)
    for section, values in (SMALL if options.small else {}).items():
        params = params | {section: params[section] | values}
    params["seeds"] = list(range(options.seeds))
    options.out.mkdir(parents=True)
    run = Run(Path(tempfile.mkdtemp()), options.out / "log.txt")
    try:
        project(run.folder, params, options.images)
        run.stages(["probe", "prepare_data", "train_teacher"])
        run.stages(seeded(), params["seeds"])
        run.stages(["dtype_bench"], params["seeds"][:1])
        run.stages(["latency_bench"])
        sized = (64, 64, 1, [32], 64) if options.small else (32, 45_000, 2, [128, 512, 2048], 8192)
        lines = list(speeds(*sized))
        left = 60 * options.minutes - RESERVE - (time.perf_counter() - start)
        finetuned = max(run.seconds["finetune", str(seed)] for seed in params["seeds"]) + 0.01
        epoch = finetuned / (params["finetune"]["epochs"] * len(params["sparsities"]))
        fitting = left / (COMPRESS_EPOCH * epoch * len(params["compress"]["times_smaller"]))
        if not options.small:
            params["compress"]["epochs"] = max(1, int(fitting))
        write(run.folder, params)
        run.stages(["compress"], params["seeds"])
        run.stages(["package"])
        collect(run.folder, options.out)
    finally:
        shutil.rmtree(run.folder, ignore_errors=True)
    seconds = [{"stage": name, "seed": seed, "seconds": run.seconds[name, seed]}
               for name, seed in run.seconds]  # fmt: skip
    for name, told in (("seconds", seconds), ("speed", lines)):
        (options.out / f"{name}.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    for line in lines:
        print(line)
    print(
        f"compress: {params['compress']['epochs']} epochs; all: {time.perf_counter() - start:.0f} s"
    )
    if run.failed:
        raise SystemExit(f"failed: {', '.join(run.failed)}; see {run.log}")


if __name__ == "__main__":
    main()
