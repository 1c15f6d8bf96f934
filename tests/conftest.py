"""A small copy of the repository in which tests run the real dvc."""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from xdist.scheduler import LoadScopeScheduling

# Started in the background by a script, a process ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Networks that are built while tests are collected draw the same weights in every run.
torch.manual_seed(0)

ROOT = Path(__file__).resolve().parent.parent
PROJECT = (
    "stages", "dvc.yaml", "probe/dvc.yaml", "params.yaml", "requirements.txt", ".dvc/config",
    ".dvc/.gitignore", ".dvcignore", ".gitattributes", ".gitignore", "data/.gitignore",
    "artifacts/.gitignore",
)  # fmt: skip


def params_with(overrides: dict) -> dict:
    """The committed params with some values replaced: `{section: {key: value}}`, or a bare value
    for a bare section. A key that params.yaml does not have is refused.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, value in overrides.items():
        known = params[section]
        if isinstance(known, dict):
            assert value.keys() <= known.keys(), f"{section}: {value.keys() - known.keys()}"
            params[section] = known | value
        else:
            params[section] = value
    return params


# As little work as still goes through every stage.
TINY = params_with(
    {
        "seeds": [0],
        "sparsities": [0.3, 0.6],
        "compute": {"device": "cpu", "threads": 1},
        # Stages import torch once: the two processes of the tests keep the cores busy.
        "engine": {"workers": 1},
        "model": {"width": 4},
        "training": {"batch_size": 100},
        "train_baseline": {"epochs": 2},
        "teacher": {"name": "convnet", "width": 6, "epochs": 1},
        "layerwise_sweep": {"max_accuracy_drop": 0.02},
        "finetune": {"epochs": 1},
        "iterative_prune": {"target": 0.6, "step": 0.3, "epochs_per_step": 1},
        "structured_prune": {
            "sparsities": [0.6], "scopes": ["layer"], "multiple_of": 1, "epochs": 1,
        },
        "compress": {
            "arms": ["both", "quantized"], "times_smaller": [4.0, 8.0], "epochs": 1,
        },
        "dtype_bench": {
            "networks": ["baseline"], "dtypes": ["float32", "bfloat16"], "batch_sizes": [1, 2],
            "agreement_images": 2, "seconds": 0.01,
        },
        "latency_bench": {"batch_sizes": [1, 2], "seconds": 0.01},
        "int_quantize": {"bits": [4, 8], "granularities": ["tensor"], "store_bits": [8]},
        "export_onnx": {
            "structured_scopes": "all", "structured_sparsities": "all",
            "calibration": ["minmax", "percentile"], "calibration_images": 16,
        },
        "package": {"max_accuracy_drop": 0.2},
        "report": {"sparsity": 0.6, "tolerance": 0.01},
    }
)  # fmt: skip


SEEDED = {
    "train_baseline", "layerwise_sweep", "global_prune", "finetune", "iterative_prune",
    "controls", "structured_prune", "int_quantize", "compress", "export_onnx",
}  # fmt: skip
ALWAYS = {"probe/dvc.yaml:probe"}


def of_seed(names: set[str], seed: int = 0) -> set[str]:
    """Stage names as dvc prints them: `finetune@0` for a stage that has seeds."""
    return {f"{name}@{seed}" if name in SEEDED else name for name in names}


EVERYTHING = of_seed(SEEDED) | {
    *ALWAYS, "prepare_data", "train_teacher", "layer_bench", "dtype_bench", "latency_bench",
    "package", "report",
}  # fmt: skip


# Outputs that hold latencies, and what is made of them, differ from run to run.
WITH_LATENCIES = {
    "artifacts/layer_bench", "artifacts/dtype_bench", "artifacts/latency_bench",
    "artifacts/package", "artifacts/deploy",
    "reports/report.md", "reports/index.html", "reports/findings.json", "reports/metrics.json",
    "reports/figures", "reports/runs",
}  # fmt: skip


IN_ONE_PROCESS = """
import runpy, sys
from stages.lib.core import params, pipeline
seeds = params.read("seeds").seeds
for name in sys.argv[1:]:
    for seed in seeds if pipeline.declared(name).per_seed else [None]:
        sys.argv = [""] if seed is None else ["", "--seed", str(seed)]
        runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A red test stays red: what it draws without a seed of its own is the same in every run."""
    torch.manual_seed(0)


def copy_project(path: Path) -> None:
    """Copies what runs the stages, without Git's history."""
    for name in PROJECT:
        source, target = ROOT / name, path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)


def write_params(path: Path, params: dict) -> None:
    """Writes the params of the repository at `path`."""
    text = yaml.safe_dump(params, sort_keys=False)
    (path / "params.yaml").write_text(text, encoding="utf-8")


class Repository:
    """A clone with params of its own; dvc and the stages run in it with this Python."""

    def __init__(self, path: Path, params: dict) -> None:
        self.path = path
        copy_project(path)
        self.set_params(params)
        self.run("git", "init", "-q", "-b", "main")

    def copy(self, path: Path) -> "Repository":
        """Another repository with the same files, cache and history, to be changed by a test."""
        shutil.copytree(self.path, path, symlinks=True)
        return self.at(path)

    def clone(self, path: Path) -> "Repository":
        """A clone of what is committed, with this one's cache, so that nothing is trained in it."""
        self.run("git", "clone", "--quiet", ".", str(path))
        other = self.at(path)
        other.run(*other.dvc("cache", "dir", "--local", str(self.path / ".dvc/cache")))
        return other

    def at(self, path: Path) -> "Repository":
        """The same params in another place."""
        other = copy.copy(self)
        other.path, other.params = path, copy.deepcopy(self.params)
        return other

    def set_params(self, params: dict) -> None:
        self.params = copy.deepcopy(params)
        write_params(self.path, params)

    @property
    def environment(self) -> dict[str, str]:
        # `python -m stages.X` must find this interpreter, whether or not its environment is active.
        binaries = str(Path(sys.executable).parent)
        identity = {
            f"GIT_{role}_{what}": text
            for role in ("AUTHOR", "COMMITTER")
            for what, text in (("NAME", "a"), ("EMAIL", "a@example.org"))
        }
        path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **identity, "PATH": path}

    def dvc(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dvc", *arguments]

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | environment,
            capture_output=True,
            encoding="utf-8",
        )

    def repro(self, *arguments: str) -> set[str]:
        """Runs `dvc repro` and returns the stages that ran (a seed's stage as `name@seed`)."""
        done = self.run(*self.dvc("repro", *arguments))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        self.said = done.stdout
        return set(re.findall(r"Running stage '([^']+)'", done.stdout))

    def commit(self, message: str = "a run") -> None:
        for command in (("add", "--all"), ("commit", "--quiet", "--message", message)):
            done = self.run("git", *command)
            assert done.returncode == 0, done.stderr

    def stages(self, *names: str) -> None:
        """Runs stages in this order in one process, as each of its own takes two seconds more."""
        done = self.run(sys.executable, "-c", IN_ONE_PROCESS, *names)
        assert done.returncode == 0, done.stderr

    def change(self, key: str, value: object) -> None:
        """Sets `section.key` or a bare section of params.yaml."""
        section, _, name = key.partition(".")
        if name:
            self.params[section][name] = value
        else:
            self.params[section] = value
        self.set_params(self.params)

    def hashes(self) -> dict[str, str]:
        """DVC's hash of every output that is the same in every run, by path."""
        lock = yaml.safe_load((self.path / "dvc.lock").read_text(encoding="utf-8"))
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
        return {out["path"]: out["md5"] for out in outs if out["path"] not in WITH_LATENCIES}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Repository:
    """A repository in which the whole tiny pipeline has run once, and is committed. Tests that
    change it put it back, or work on a copy.
    """
    repository = Repository(tmp_path_factory.mktemp("tiny"), TINY)
    repository.first = repository.repro()
    repository.log = repository.said
    repository.commit()
    return repository


class ByFile(LoadScopeScheduling):
    """A file's tests run in one process, and so do all of the tiny repository: it is made once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tiny" if file.startswith(("tests/pipeline/", "tests/pruning/test_ext")) else file


def pytest_xdist_make_scheduler(config, log):
    # xdist 3.8's own groups, --dist loadgroup, are without effect in pytest 9.2.
    return ByFile(config, log)
