"""Peak memory and speed of prepare_data on a generated folder of images.

    python -m tests.benchmarks.prepare_memory [--images 100000] [--size 64]

Half JPEG, half PNG, in ten classes, in a temporary folder, prepared in a temporary copy of the
repository. The memory is the resident set at its highest (ru_maxrss), of the stage alone.

Measured (2 cores of a busy AMD EPYC, Python 3.11, Pillow 13.0, n = 1): 302 MiB for 100,000 images
at 64 px, whose arrays take 1173 MiB, at 2208 files/s; 289 MiB for 10,000.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tests.benchmarks.common import parser, timed
from tests.conftest import TINY, Repository

CLASSES = 10


def generate(root: Path, count: int, size: int) -> None:
    """Smooth colours with noise on them: files as large as photographs of this size."""

    def save(number: int) -> None:
        generator = np.random.default_rng(number)
        corners = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        smooth = np.asarray(corners.resize((size, size), Image.Resampling.BICUBIC))
        noisy = (smooth + generator.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
        folder = root / f"class-{number // 2 % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(folder / f"{number:07}.{'jpg' if number % 2 else 'png'}")

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(save, range(count), chunksize=100):
            pass


def measured(stage: str, folder: Path) -> tuple[float, float]:
    """Seconds, and the highest resident set in MiB, of a stage's process."""
    seconds: dict[str, float] = {}
    with timed(seconds, stage):
        process = subprocess.Popen([sys.executable, "-m", f"stages.{stage}"], cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{stage} ended with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds[stage], usage.ru_maxrss * unit / 2**20


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=100_000)
    arguments.add_argument("--size", type=int, default=64, help="pixels a side")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        generate(images, chosen.images, chosen.size)
        repository = Repository(Path(folder) / "copy", TINY)
        repository.params["data"] |= {
            "source": "image_folder", "root": str(images), "image_size": chosen.size,
            "validation_images": chosen.images // 10, "test_images": chosen.images // 10,
        }  # fmt: skip
        repository.set_params(repository.params)
        probe, _ = measured("probe", repository.path)
        seconds, peak = measured("prepare_data", repository.path)
        prepared = repository.path / "data/prepared"
        arrays = sum(path.stat().st_size for path in prepared.glob("*.npy")) / 2**20
        meta = json.loads((prepared / "meta.json").read_text(encoding="utf-8"))
    assert sum(meta["images"].values()) == chosen.images
    print(f"{chosen.images} images of {chosen.size} px, {os.cpu_count()} cores, n = 1")
    print(f"prepare_data  {seconds:8.1f} s   {chosen.images / seconds:8.0f} files/s")
    print(f"peak memory   {peak:8.0f} MiB")
    print(f"arrays        {arrays:8.0f} MiB")
    print(f"probe         {probe:8.1f} s")


if __name__ == "__main__":
    main()
