"""What runs again after a change: of params, of code, and of code while a stage runs."""

import networkx
import pytest
from dvc.repo import Repo

from stages.lib.core import params
from tests import test_house as house
from tests.conftest import ALWAYS, EVERYTHING, ROOT, SEEDED, TINY, of_seed


def after(*names: str) -> set[str]:
    """These stages of the one seed, and the two that read nearly all files."""
    return of_seed({*names, "package", "report"})


# What must run when one value changes, written down by hand: the promise, not a copy of dvc.yaml.
CHANGES = {
    "seeds": ([0, 7], of_seed(SEEDED, 7) | after("latency_bench")),
    "sparsities": (
        [0.4, 0.6],
        after(
            "layerwise_sweep", "global_prune", "finetune", "iterative_prune", "controls",
            "export_onnx", "latency_bench",
        ),
    ),
    "compute.threads": (2, EVERYTHING - ALWAYS - {"prepare_data", "layer_bench"}),
    "engine.workers": (3, set()),
    "data.split_seed": (1, EVERYTHING - ALWAYS),
    "model.width": (5, EVERYTHING - ALWAYS - {"prepare_data"}),
    "training.momentum": (0.8, EVERYTHING - ALWAYS - {"prepare_data", "layer_bench"}),
    "train_baseline.epochs": (
        1, EVERYTHING - ALWAYS - {"prepare_data", "layer_bench", "train_teacher"},
    ),
    "teacher.width": (
        7,
        after("train_teacher", "structured_prune", "compress", "export_onnx", "latency_bench"),
    ),
    "layerwise_sweep.max_accuracy_drop": (0.5, after("layerwise_sweep")),
    "finetune.epochs": (2, after("finetune", "controls", "export_onnx", "latency_bench")),
    "iterative_prune.step": (0.2, after("iterative_prune", "controls")),
    "controls.finetuned": (["uniform"], after("controls")),
    "structured_prune.epochs": (
        2, after("layer_bench", "structured_prune", "export_onnx", "latency_bench"),
    ),
    "compress.epochs": (2, after("compress")),
    "int_quantize.bits": ([3, 4, 8], after("int_quantize")),
    "dtype_bench.batch_sizes": ([1], after("dtype_bench", "latency_bench")),
    "latency_bench.seconds": (0.02, after("latency_bench")),
    "export_onnx.calibration_images": (8, after("export_onnx", "latency_bench")),
    "package.max_accuracy_drop": (0.5, after()),
    "report.sparsity": (0.3, after()),
}  # fmt: skip


def test_every_section_has_its_change_written_down():
    assert {key.partition(".")[0] for key in CHANGES} == set(params.SECTIONS)


@pytest.fixture
def here(tiny, monkeypatch):
    """The tiny repository, as the working directory: DVC names stages as on its command line."""
    monkeypatch.chdir(tiny.path)
    return tiny


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_param_reaches_the_stages_that_are_written_down(here, key):
    """Those that `dvc status` names, and all that comes after them in DVC's graph."""
    value, expected = CHANGES[key]
    try:
        here.change(key, value)
        repository = Repo()
        changed = set(repository.status()) - ALWAYS
        graph = networkx.relabel_nodes(repository.index.graph, lambda stage: stage.addressing)
        assert bool(changed) == bool(expected)
        assert changed.union(*(networkx.ancestors(graph, name) for name in changed)) == expected
    finally:
        here.set_params(TINY)


def named() -> tuple[set[str], set[str]]:
    """The stages that `dvc status` and `dvc repro --dry` name."""
    return set(Repo().status()), {stage.addressing for stage in Repo().reproduce(dry=True)}


@pytest.mark.parametrize("package", house.MAY_IMPORT)
def test_an_edit_of_a_package_is_seen_by_the_stages_that_import_it(here, package):
    """Of all stages, those whose script reaches the package through imports, and no others."""
    scripts = {
        script.stem for script in house.STAGES if f"stages/lib/{package}" in house.reach(script)
    }
    reached = of_seed(scripts - {"probe"}) | ALWAYS
    module = min(path for path in house.LIBRARY if house.package(path) == package)
    module = here.path / module.relative_to(ROOT)
    source = module.read_bytes()
    try:
        module.write_bytes(source + b"\n# another version\n")
        assert named() == (reached, reached)
    finally:
        module.write_bytes(source)


def test_what_depends_on_a_change_runs_and_nothing_else(tiny, tmp_path):
    """One change after another, and back again: DVC's run cache holds what ran before."""
    changed = tiny.copy(tmp_path / "changed")
    bits, expected = CHANGES["int_quantize.bits"]
    changed.change("int_quantize.bits", bits)
    assert changed.repro() == expected | ALWAYS
    changed.change("seeds", [0, 7])
    assert changed.repro("train_baseline") == {"train_baseline@7"} | ALWAYS
    assert [*changed.path.glob("artifacts/*/seed-7")]
    changed.set_params(TINY)
    assert changed.repro() <= ALWAYS | {"report"}
    assert tiny.hashes().items() <= changed.hashes().items()
    assert not [*changed.path.glob("artifacts/*/seed-7")]


# A network whose factory edits the code of the stage that trains it, once. `probe` builds it too.
EDITING = """
import sys
from pathlib import Path

from torch import nn


def build(num_classes):
    module, mark = Path("stages/lib/training/loop.py"), Path("edit")
    if mark.exists() and Path(sys.argv[0]).stem == "train_baseline":
        mark.unlink()
        module.write_text(module.read_text() + "\\nprint('the new code')\\n")
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


def test_a_stage_whose_code_changed_meanwhile_leaves_nothing_and_runs_again(tiny, tmp_path):
    edited = tiny.copy(tmp_path / "edited")
    (edited.path / "nets").mkdir()
    (edited.path / "nets/mine.py").write_text(EDITING, encoding="utf-8")
    (edited.path / "edit").touch()
    edited.change("model.name", "nets/mine.py:build")
    done = edited.run(*edited.dvc("repro", "train_baseline"))
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "stages/lib/training/loop.py: changed while the stage ran" in line
    assert "Traceback" not in done.stderr
    left = [path.name for path in edited.path.glob("artifacts/train_baseline/*")]
    assert set(left) <= {".seed-0.arms", ".seed-0.key"}
    assert not [*edited.path.glob("artifacts/train_baseline/.seed-0.arms/*/[0-9]")]
    again = edited.run(*edited.dvc("repro", "train_baseline"))
    assert "the new code" in again.stdout, again.stderr
    assert edited.repro("train_baseline") == ALWAYS


def test_a_failed_report_leaves_the_committed_files_as_they_were(tiny, tmp_path):
    failing = tiny.copy(tmp_path / "failing")
    script = failing.path / "stages/report.py"
    source = script.read_text(encoding="utf-8")
    last = "def fails(stage):\n    main(stage)\n    raise OSError('the last step')\n\n\nif __name__"
    edited = source.replace("if __name__", last).replace("run_stage(main", "run_stage(fails")
    script.write_text(edited, encoding="utf-8")
    assert "the last step" in failing.run(*failing.dvc("repro")).stderr
    script.write_text(source, encoding="utf-8")
    assert failing.run("git", "status", "--porcelain").stdout == ""
    assert failing.repro() == ALWAYS


def test_a_clone_has_the_same_bytes_where_git_converts_line_ends(tiny, tmp_path):
    copy = tmp_path / "windows"
    tiny.run("git", "clone", "--quiet", "--config", "core.autocrlf=true", ".", str(copy))
    for name in tiny.run("git", "ls-files").stdout.splitlines():
        assert (copy / name).read_bytes() == (tiny.path / name).read_bytes(), name
