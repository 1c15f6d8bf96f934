"""A small copy of the repository in which tests run the real dvc."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = (
    "stages", "dvc.yaml", "probe/dvc.yaml", "params.yaml", "requirements.txt", ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore", ".gitattributes", ".gitignore", "data/.gitignore", "artifacts/.gitignore",
)  # fmt: skip

# As little work as still goes through every stage. Threads: 1, as two workers share two cores.
TINY = {
    "seeds": [0],
    "sparsities": [0.3, 0.6],
    "compute": {"device": "cpu", "threads": 1, "precision": "auto"},
    "data": {
        "source": "digits", "root": "data/raw", "image_size": "auto", "color": "auto",
        "max_unreadable": 0, "validation_images": 297, "test_images": 500, "split_seed": 0,
    },
    "model": {"name": "convnet", "width": 4, "weights": "none", "normalize": "training"},
    "training": {
        "batch_size": 100, "momentum": 0.9, "weight_decay": 0.0005, "shift": 1, "mirror": False,
    },
    "train_baseline": {"epochs": 2, "learning_rate": 0.1},
    "layerwise_sweep": {"max_accuracy_drop": 0.02},
    "finetune": {"epochs": 1, "learning_rate": 0.05},
    "iterative_prune": {
        "target": 0.6, "step": 0.3, "epochs_per_step": 1, "learning_rate": 0.05,
    },
    "controls": {
        "finetuned": ["baseline", "uniform", "random_global"], "equal_budget": [0.6],
    },
    "structured_prune": {
        "sparsities": [0.6], "scopes": ["layer"], "multiple_of": 1, "epochs": 1,
        "learning_rate": 0.05, "distillation": 0, "temperature": 4,
    },
    "compress": {
        "arms": ["both", "quantized"], "times_smaller": [4.0, 8.0], "bits": [2, 4],
        "granularity": "channel", "epochs": 1, "learning_rate": 0.05, "distillation": 0.5,
        "temperature": 4, "sensitivity_images": 50,
    },
    "dtype_bench": {
        "networks": ["baseline"], "dtypes": ["float32", "bfloat16"], "devices": ["cpu", "cuda"],
        "batch_sizes": [1, 2], "resnet152_image_size": 32, "agreement_images": 2, "seconds": 0.01,
    },
    "latency_bench": {
        "batch_sizes": [1, 2], "seconds": 0.01, "threads": 1, "compile": False,
        "compile_seconds": 60,
    },
    "int_quantize": {
        "bits": [4, 8], "schemes": ["affine", "symmetric"], "granularities": ["tensor"],
        "store_bits": [8],
    },
    "export_onnx": {
        "structured_scopes": "all", "structured_sparsities": "all",
        "calibration": ["minmax", "percentile"], "calibration_images": 16, "percentile": 99.9,
        "weight_bits": "auto",
    },
    "package": {"max_accuracy_drop": 0.2, "max_bytes": "none", "max_latency_ms": "none"},
    "report": {"sparsity": 0.6, "confidence": 0.95, "tolerance": 0.01},
}  # fmt: skip


SEEDED = {
    "train_baseline", "layerwise_sweep", "global_prune", "finetune", "iterative_prune",
    "controls", "structured_prune", "int_quantize", "compress", "export_onnx",
}  # fmt: skip
ALWAYS = {"probe/dvc.yaml:probe"}


def of_seed(names: set[str], seed: int = 0) -> set[str]:
    """Stage names as dvc prints them: `finetune@0` for a stage that has seeds."""
    return {f"{name}@{seed}" if name in SEEDED else name for name in names}


EVERYTHING = of_seed(SEEDED) | {
    *ALWAYS, "prepare_data", "dtype_bench", "latency_bench", "package", "report",
}  # fmt: skip


class Repository:
    """A clone with params of its own; dvc and the stages run in it with this Python."""

    def __init__(self, path: Path, params: dict) -> None:
        self.path = path
        self.params = copy.deepcopy(params)
        for name in PROJECT:
            source, target = ROOT / name, path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)
        self.write_params()
        subprocess.run(["git", "init", "-q"], cwd=path, check=True)

    def write_params(self) -> None:
        text = yaml.safe_dump(self.params, sort_keys=False)
        (self.path / "params.yaml").write_text(text, encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        # `python -m stages.X` must find this interpreter, whether or not its environment is active.
        binaries = str(Path(sys.executable).parent)
        return {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}

    def dvc(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dvc", *arguments]

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True
        )

    def repro(self) -> set[str]:
        """Runs `dvc repro` and returns the stages that ran (a seed's stage as `name@seed`)."""
        done = self.run(*self.dvc("repro"))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return set(re.findall(r"Running stage '([^']+)'", done.stdout))

    def stage(self, name: str, *arguments: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", f"stages.{name}", *arguments)

    def change(self, key: str, value: object) -> None:
        """Sets `section.key` or a bare section of params.yaml."""
        section, _, name = key.partition(".")
        if name:
            self.params[section][name] = value
        else:
            self.params[section] = value
        self.write_params()

    def hashes(self) -> dict[str, str]:
        """DVC's hash of every output in dvc.lock, by path."""
        lock = yaml.safe_load((self.path / "dvc.lock").read_text(encoding="utf-8"))
        return {
            out["path"]: out["md5"]
            for stage in lock["stages"].values()
            for out in stage.get("outs", [])
        }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Repository:
    """A repository in which the whole tiny pipeline has run once."""
    repository = Repository(tmp_path_factory.mktemp("tiny"), TINY)
    repository.first = repository.repro()
    return repository
