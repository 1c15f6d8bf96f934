"""What a newcomer brings: a folder of images in mixed formats, a network in a file of their own."""

import csv

import numpy as np
import pytest
from dvc.repo import Repo
from PIL import Image

from stages.lib.core import pipeline, prepared, records
from tests.conftest import ALWAYS, TINY, Repository

SEEDS = [0, 7]
BASELINES = {f"train_baseline@{seed}" for seed in SEEDS}
# A residual network of two blocks, whose blocks are in a file beside it.
NETWORK = """
from torch import nn
from blocks import Block

def build(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        Block(8, 8, 1), Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""
BLOCKS = """
from torch import nn

class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after),
        )
        same = before == after
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x):
        return (self.branch(x) + self.shortcut(x)).relu()
"""
KINDS = [
    ("jpg", "RGB"), ("png", "L"), ("png", "RGBA"), ("gif", "P"), ("bmp", "RGB"), ("jpeg", "CMYK"),
    ("tiff", "L"), ("webp", "RGB"), ("PNG", "1"),
]  # fmt: skip


def write_images(folder, name, brightness, count=30):
    """Images of one class, each of another size, format and mode, brighter or darker."""
    random = np.random.default_rng(brightness)
    (folder / name).mkdir(parents=True)
    for index in range(count):
        suffix, mode = KINDS[index % len(KINDS)]
        noise = random.integers(0, 80, (12 + index, 40 - index, 3)) + brightness
        image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert(mode)
        image.save(folder / name / f"photo {index}.{suffix}")


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Repository:
    repository = Repository(tmp_path_factory.mktemp("own"), TINY)
    write_images(repository.path / "photos", "dark", 20)
    write_images(repository.path / "photos", "light", 150)
    (repository.path / "nets").mkdir()
    (repository.path / "nets/mine.py").write_text(NETWORK)
    (repository.path / "nets/blocks.py").write_text(BLOCKS)
    repository.params["data"] |= {
        "source": "image_folder", "root": "photos", "image_size": 16,
        "validation_images": 12, "test_images": 12,
    }  # fmt: skip
    repository.params["seeds"] = SEEDS
    repository.params["model"] |= {"name": "nets/mine.py:build"}
    repository.set_params(repository.params)
    # Stages with a past of their own in DVC, to see what is noticed; all others without it.
    repository.repro("train_baseline")
    repository.stages(*pipeline.stages())
    return repository


def stale(repository: Repository) -> set[str]:
    """The stages that are not what DVC remembers, after the probe has looked."""
    repository.run(*repository.dvc("repro", "probe/dvc.yaml"))
    return set(Repo(repository.path).status(["train_baseline"], with_deps=True))


def test_the_report_names_them(own):
    page = (own.path / "reports/report.md").read_text(encoding="utf-8")
    assert "nets/mine.py:build" in page
    assert "2 classes, images 3×16×16" in page
    assert prepared.read_meta(own.path / "data/prepared")["classes"] == ["dark", "light"]


def test_all_seeds_are_timed_and_reported(own):
    seeds = set(map(str, SEEDS))
    with (own.path / "artifacts/latency_bench/rows.csv").open(encoding="utf-8") as file:
        assert {row["seed"] for row in csv.DictReader(file)} == seeds
    runs = own.path.glob("reports/runs/*/seed-*")
    assert {path.name.removeprefix("seed-") for path in runs} == seeds


def test_every_method_has_pruned_and_quantized_the_network(own):
    for stage in ("layerwise_sweep", "iterative_prune", "structured_prune", "int_quantize"):
        rows = records.read(own.path / f"artifacts/{stage}/seed-0/rows.csv")
        assert rows
        assert stage == "int_quantize" or all(row.sparsity > 0 for row in rows[1:-1])
    structured = records.read(own.path / "artifacts/structured_prune/seed-0/rows.csv")
    baseline = records.read(own.path / "artifacts/train_baseline/seed-0/rows.csv")[0]
    assert all(row.parameters < baseline.parameters for row in structured)


def test_a_pruned_network_is_rebuilt_from_its_file_by_a_fresh_process(own):
    program = (
        "from pathlib import Path\n"
        "import torch\n"
        "from stages.lib.models import checkpoints\n"
        "file, = Path('artifacts/structured_prune/seed-0').glob('*_finetune-*')\n"
        "model = checkpoints.load_model(file, network='nets/mine.py:build')\n"
        "print(list(model(torch.zeros(1, 3, 16, 16)).shape))\n"
    )
    (own.path / "load.py").write_text(program)
    done = own.run("python", "-m", "load")
    assert done.stdout == "[1, 2]\n", done.stderr


def test_a_module_beside_the_network_and_a_new_image_are_noticed(own, monkeypatch):
    monkeypatch.chdir(own.path)
    (own.path / "nets/blocks.py").write_text(BLOCKS + "\n# another version\n")
    assert stale(own) - ALWAYS == BASELINES
    Image.new("RGB", (20, 20)).save(own.path / "photos/dark/new.png")
    assert stale(own) - ALWAYS == BASELINES | {"prepare_data"}
