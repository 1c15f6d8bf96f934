"""The pipeline as a person runs it: the real dvc, the real stages, a tiny configuration."""

import itertools
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from stages.lib.core import paths, records
from tests import documents
from tests.conftest import ALWAYS, EVERYTHING, ROOT, SEEDED, TINY, Repository


def test_the_first_run_runs_every_stage_and_the_second_the_probe_alone(tiny):
    """Whatever else lies beside the folders of the seeds."""
    assert tiny.first == EVERYTHING
    stray = tiny.path / "artifacts/finetune/notes.txt"
    stray.write_text("mine", encoding="utf-8")
    assert tiny.repro() == ALWAYS
    stray.unlink()


def test_each_stage_tells_its_result_once_and_the_last_lines_are_as_in_the_readme(tiny):
    lines, count = tiny.log.splitlines(), len(EVERYTHING)
    line = re.compile(rf"(\S+) .*[^ ] (\d+) of {count}(, about [\d.]+ \w+ left)?")
    found = [line.fullmatch(one) for one in lines]
    told = [match for match in found if match]
    assert [int(match[2]) for match in told] == list(range(1, count + 1))
    assert {match[1] for match in told} == {name.rpartition(":")[2] for name in EVERYTHING}
    (block,) = [
        one for one in documents.blocks(ROOT / "README.md") if one.text.startswith("report ")
    ]
    shown = [line.split()[0] for line in block.text.splitlines()]
    end = found.index(told[-1])
    assert [line.split()[0] for line in lines[end : end + len(shown)]] == shown
    quiet = tiny.run(*tiny.dvc("repro", "-q"))
    assert [line.split()[0] for line in quiet.stdout.splitlines()] == ["probe"]
    assert quiet.stderr == ""


def test_the_report_is_whole(tiny):
    page = (tiny.path / "reports/report.md").read_text(encoding="utf-8")
    pictures = list((tiny.path / "reports/figures").glob("*.svg"))
    assert pictures
    assert all(f"figures/{picture.name}" in page for picture in pictures)
    assert "nan" not in page.lower().replace("finance", "")
    metrics = json.loads((tiny.path / "reports/metrics.json").read_text(encoding="utf-8"))
    assert 0 < metrics["test_accuracy"]["baseline"] <= 1
    runs = {path.parts[-3] for path in (tiny.path / "reports/runs").glob("*/seed-0/*.csv")}
    assert runs == SEEDED


def test_the_report_can_be_compared_with_a_commit_of_it(tiny):
    done = tiny.run(sys.executable, "-m", "stages.tools.compare", "HEAD", "--json")
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout)["metrics"]
    assert {line["verdict"] for line in lines} == {"equal"}
    metrics = json.loads((tiny.path / "reports/metrics.json").read_text(encoding="utf-8"))
    # The sparsest points are compared by their accuracies; what can be had, by `dvc metrics diff`.
    for name in ("sparsest_within", "packed", "deploy"):
        del metrics[name]
    expected = {f"{part}.{name}": metrics[part][name] for part in metrics for name in metrics[part]}
    compared = {line["metric"]: line["after"] for line in lines if line["metric"] in expected}
    assert compared == pytest.approx(expected, abs=1e-4)


def test_dvc_shows_what_can_be_had_in_experiments_metrics_and_plots(tiny):
    def said(*command):
        done = tiny.run(*tiny.dvc(*command))
        assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
        return done.stdout

    metrics = json.loads((tiny.path / "reports/metrics.json").read_text(encoding="utf-8"))
    card = json.loads((tiny.path / paths.DEPLOY / paths.MODEL_CARD).read_text(encoding="utf-8"))
    smallest = tiny.path / paths.DEPLOY / card["smallest"]["chosen"]["file"]
    assert metrics["deploy"]["smallest"]["bytes"] == smallest.stat().st_size
    assert metrics["packed"].keys() >= {"packed-4x", "packed-8x", "packed_quantized-4x"}
    workspace, *_ = json.loads(said("exp", "show", "--json"))
    shown = workspace["data"]["metrics"]["reports/metrics.json"]["data"]
    assert shown == metrics
    (compared,) = json.loads(said("metrics", "diff", "--all", "--json")).values()
    for role, numbers in metrics["deploy"].items():
        for name, number in numbers.items():
            assert compared[f"deploy.{role}.{name}"]["new"] == number
    said("plots", "diff", "HEAD", "--out", "dvc_plots")
    page = (tiny.path / "dvc_plots/index.html").read_text(encoding="utf-8")
    for title in ("Accuracy against sparsity", "Smaller and faster", "Accuracy of packed files"):
        assert title in page


def test_a_stage_run_alone_gives_the_bytes_of_the_pipeline(tiny):
    directory = tiny.path / "artifacts/iterative_prune/seed-0"
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    # DVC's cache links are read-only copies; the stage replaces the directory, not the files.
    tiny.stages("iterative_prune")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_kept_models_are_as_sparse_as_their_rows_say(tiny):
    for stage in ("global_prune", "finetune", "iterative_prune"):
        for row in records.read(tiny.path / f"artifacts/{stage}/seed-0/rows.csv"):
            tensors = load_file(tiny.path / row.model)
            weights = [value for value in tensors.values() if value.ndim > 1]
            zeros = sum((value == 0).sum() for value in weights)
            assert zeros / sum(value.size for value in weights) == pytest.approx(
                row.target_sparsity, abs=1e-3
            )
            assert (tiny.path / row.model).stat().st_size == row.bytes_on_disk


def test_predictions_of_every_whole_network_give_its_accuracy(tiny):
    files = {"test": paths.PREDICTIONS, "validation": paths.VALIDATION_PREDICTIONS}
    for stage, (part, file) in itertools.product(SEEDED, files.items()):
        labels = np.load(tiny.path / f"data/prepared/{part}_labels.npy")
        directory = tiny.path / f"artifacts/{stage}/seed-0"
        predictions = load_file(directory / file)
        rows = [row for row in records.read(directory / "rows.csv") if row.layer == ".all"]
        # Every engine's predictions with one ONNX file are kept beside those of its row.
        assert len(predictions) >= len(rows) > 0
        for row in rows:
            about = row.method, row.target_sparsity, row.weight_bits, row.times_smaller
            accuracy = (predictions[paths.network_name(*about)] == labels).mean()
            assert accuracy == pytest.approx(getattr(row, f"{part}_accuracy"), abs=1e-6)


def test_equal_budgets_are_what_iterative_pruning_had_spent(tiny):
    def spent(stage):
        rows = records.read(tiny.path / f"artifacts/{stage}/seed-0/rows.csv")
        return {(row.method, row.target_sparsity): row.extra_epochs for row in rows}

    iterative, controls = spent("iterative_prune"), spent("controls")
    assert controls[("baseline_long", 0.0)] == max(iterative.values())
    for sparsity in TINY["sparsities"]:
        assert controls[("finetune_long", sparsity)] == iterative[("iterative", sparsity)]


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("artifacts/train_baseline/seed-0/model.safetensors", "layerwise_sweep"),
        ("artifacts/global_prune/seed-0/global-0.6.safetensors", "finetune"),
        ("data/prepared/train_images.npy", "train_baseline"),
        ("data/prepared/meta.json", "train_baseline"),
        ("artifacts/finetune/seed-0/rows.csv", "report"),
        ("artifacts/dtype_bench/rows.csv", "report"),
        ("artifacts/int_quantize/seed-0/layers.csv", "report"),
        ("artifacts/hardware.json", "report"),
    ],
)
def test_a_spoiled_input_stops_the_stage_with_a_line_that_names_it(
    tiny, monkeypatch, capsys, file, stage
):
    """In this process, which has torch already."""
    path = tiny.path / file
    whole = path.read_bytes()
    path.chmod(0o644)
    monkeypatch.chdir(tiny.path)
    # Other tests have edited the code and put it back since this process began.
    monkeypatch.setattr("stages.lib.core.stage.STARTED", time.time())
    monkeypatch.setattr(sys, "argv", ["stage", *(["--seed", "0"] if stage in SEEDED else [])])
    try:
        for content in (whole[: len(whole) * 2 // 3], b"a,b\n1,2\n"):
            path.write_bytes(content)
            with pytest.raises(SystemExit) as exit:
                runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
            said = capsys.readouterr().err
            assert (exit.value.code, file in said, "dvc repro" in said) == (2, True, True), said
    finally:
        path.write_bytes(whole)


def test_a_typo_in_the_last_section_stops_dvc_before_any_work(tiny):
    tiny.change("report.sparsityy", 0.6)
    try:
        done = tiny.run(*tiny.dvc("repro"))
    finally:
        tiny.set_params(TINY)
    assert done.returncode != 0
    assert "report.sparsityy: unknown key; the nearest known one is sparsity" in done.stderr
    assert "Running stage 'report'" not in done.stdout
    assert "Traceback" not in done.stderr


def test_interrupted_runs_end_in_the_same_bytes(tiny, tmp_path):
    """Three stages of a second clone, each killed in another way while it is at work."""
    clone = Repository(tmp_path / "clone", TINY)
    repro = clone.dvc("repro", "finetune")
    kills = {
        "train_baseline": (os.killpg, signal.SIGKILL),
        # The stage is left an orphan, at work while the next repro starts.
        "global_prune": (os.kill, signal.SIGKILL),
        "finetune": (os.killpg, signal.SIGINT),
    }
    for name, (kill, kind) in kills.items():
        log = tmp_path / f"{name}.log"
        process = subprocess.Popen(
            repro, cwd=clone.path, env=clone.environment, start_new_session=True,
            stdout=log.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        # A stage makes this folder when it has imported everything and begins.
        while not (clone.path / "artifacts" / name).exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        kill(process.pid, kind)
        assert process.wait() != 0
    clone.repro("finetune")
    hashes = clone.hashes()
    assert len(hashes) == 1 + len(kills)
    assert hashes.items() <= tiny.hashes().items()
    assert not [path for path in clone.path.rglob("*.partial") if ".dvc" not in path.parts]
