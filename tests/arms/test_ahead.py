"""Arms that are done before their own stage runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.lib.arms import ahead
from stages.lib.arms.worker import Task
from stages.lib.core import interpreter, pipeline
from tests.arms import toy_stage
from tests.conftest import ROOT, copy_project

# A dvc command whose pipeline is the toy stage, for seed 0.
DVC = """
import subprocess, sys
sys.exit(subprocess.run([sys.executable, "-m", "stages.toy", "--seed", "0"]).returncode)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project in which the baselines of seeds 0 and 1 were trained just now."""
    copy_project(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"seeds": [0, 1]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for folder in ("artifacts", "data/prepared"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interpreter, "runs_everything", lambda: True)
    for name in ("probe", "prepare_data", "train_baseline", "train_teacher", "layer_bench"):
        for seed in (0, 1):
            for out in pipeline.declared(name).outs(seed):
                out.mkdir(parents=True, exist_ok=True)
    return tmp_path


def names(found):
    return {name for name, _ in found}


def test_a_run_of_everything_takes_what_reads_nothing_that_is_still_to_be_made(project):
    found = list(ahead.ready("layerwise_sweep", 0))
    assert ("layerwise_sweep", 0) not in found
    assert ("layerwise_sweep", 1) in found
    # finetune reads what global_prune writes; export_onnx reads finetune.
    assert names(found) == {"layerwise_sweep", "global_prune", "iterative_prune", "controls",
                            "structured_prune", "int_quantize", "compress"}  # fmt: skip
    assert names(ahead.ready("train_baseline", 0)) == {"train_baseline"}
    assert names(ahead.ready("compress", 1)) == {"compress"}


def test_what_may_not_run_is_not_done_ahead(project, monkeypatch):
    Path("artifacts/controls/seed-1").mkdir(parents=True)
    found = list(ahead.ready("layerwise_sweep", 0))
    assert ("controls", 0) in found
    assert ("controls", 1) not in found
    monkeypatch.setattr(interpreter, "runs_everything", lambda: False)
    assert list(ahead.ready("layerwise_sweep", 0)) == [("layerwise_sweep", 1)]


def test_a_broken_script_is_told_when_its_stage_runs():
    assert ahead.arms_of("no_such_stage", None) == []


def test_an_arm_is_named_as_dvc_names_its_run():
    task = Task(*[None] * len(Task._fields))._replace(stage="train_teacher", label="teacher")
    assert task.name == "train_teacher: teacher"
    assert task._replace(seed=0).name == "train_teacher@0: teacher"


@pytest.mark.parametrize(("arguments", "second"), [(["repro"], 1), (["repro", "toy"], 0)])
def test_dvc_repro_without_a_target_has_later_stages_done(toy, tmp_path, arguments, second):
    """The second stage's first arm has a fault, of which the first stage does not hear."""
    stages = yaml.safe_load((toy.path / "dvc.yaml").read_text())
    entry = yaml.safe_dump(toy_stage.ENTRY).replace("toy", "second")
    stages["stages"]["second"] = yaml.safe_load(entry)
    (toy.path / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    script = (toy.path / "stages/toy.py").read_text().replace("arms.txt", "second.txt")
    (toy.path / "stages/second.py").write_text(script)
    (toy.path / "arms.txt").write_text("fine-0")
    (toy.path / "second.txt").write_text("broken fine-1 fine-2")
    with (toy.path / "stages/second.py").open("a") as file:
        file.write("\ndef broken(context, label):\n    raise RuntimeError(label)\n")
    toy.change("seeds", [0, 1])
    (tmp_path / "dvc").write_text(DVC)
    run = subprocess.run(
        [sys.executable, tmp_path / "dvc", *arguments], cwd=toy.path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    done = sorted((toy.path / "done.txt").read_text().split())
    assert done == ["fine-0"] * 2 + second * (["fine-1"] * 2 + ["fine-2"] * 2)
    kept = list((toy.path / "artifacts").glob("second/.seed-*.arms/*/[12]/fine-?.txt"))
    assert len(kept) == 4 * second
