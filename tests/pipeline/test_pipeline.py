"""The pipeline as a person runs it: the real dvc, the real stages, a tiny configuration."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import test_pipeline_start
import yaml
from conftest import ALWAYS, EVERYTHING, ROOT, SEEDED, TINY, Repository, of_seed

pytestmark = pytest.mark.xdist_group("pipeline")

# Outputs that hold latencies, and what is made of them, differ from run to run.
WITH_LATENCIES = {
    "artifacts/dtype_bench", "artifacts/latency_bench/seed-0", "artifacts/onnx_latency/seed-0",
    "artifacts/deploy",
    "reports/report.md", "reports/index.html", "reports/findings.json", "reports/figures",
    "reports/runs",
}  # fmt: skip


# What reads nearly all files.
AFTER = {"file_sizes", "package", "report"}
# What must run when one value changes, written down by hand: the promise, not a copy of dvc.yaml.
CHANGES = [
    (
        "sparsities",
        [0.4, 0.6],
        of_seed(
            {
                "layerwise_sweep",
                "global_prune",
                "finetune",
                "iterative_prune",
                "controls",
                "equal_budget",
                "latency_bench",
                "onnx_bench",
                *AFTER,
            }
        ),
    ),
    ("layerwise_sweep.max_accuracy_drop", 0.5, of_seed({"layerwise_sweep", "report"})),
    ("finetune.epochs", 2, of_seed({"finetune", "controls", "onnx_bench", *AFTER})),
    (
        "iterative_prune.step",
        0.2,
        of_seed({"iterative_prune", "equal_budget", *AFTER}),
    ),
    ("controls.finetuned", ["uniform"], of_seed({"controls", "report"})),
    ("equal_budget.sparsities", [0.4, 0.6], of_seed({"equal_budget", *AFTER})),
    (
        "structured_prune.epochs",
        2,
        of_seed({"structured_prune", "latency_bench", "onnx_bench", *AFTER}),
    ),
    ("int_quantize.bits", [3, 4, 8], of_seed({"int_quantize", *AFTER})),
    ("compress.epochs", 2, of_seed({"compress", *AFTER})),
    ("dtype_bench.batch_sizes", [1], {"dtype_bench", "report"}),
    ("latency_bench.seconds", 0.02, of_seed({"latency_bench", "report"})),
    ("onnx_bench.calibration_images", 8, of_seed({"onnx_bench", "package", "report"})),
    ("package.max_accuracy_drop", 0.5, {"package", "report"}),
    ("report.sparsity", 0.3, {"package", "report"}),
    ("seeds", [0, 7], of_seed(SEEDED, 7) | AFTER),
]  # fmt: skip
WRITTEN_DOWN = CHANGES + test_pipeline_start.CHANGES
# Those that are really made, one after another: each takes a whole repro. What DVC makes of the
# others follows from dvc.yaml.
RUN = ("finetune.epochs", "report.sparsity", "seeds")


def comparable(hashes):
    return {path: value for path, value in hashes.items() if path not in WITH_LATENCIES}


def test_the_first_run_runs_every_stage_once(tiny):
    assert tiny.first == EVERYTHING


def test_a_second_run_runs_the_probes_alone(tiny):
    assert tiny.repro() == ALWAYS


def test_the_report_is_whole(tiny):
    page = (tiny.path / "reports/report.md").read_text(encoding="utf-8")
    pictures = list((tiny.path / "reports/figures").glob("*.svg"))
    assert pictures
    assert all(f"figures/{picture.name}" in page for picture in pictures)
    assert "nan" not in page.lower().replace("finance", "")
    metrics = json.loads((tiny.path / "reports/metrics.json").read_text(encoding="utf-8"))
    assert 0 < metrics["test_accuracy"]["baseline"] <= 1
    runs = {path.parts[-3] for path in (tiny.path / "reports/runs").glob("*/seed-0/*.csv")}
    assert runs == SEEDED | {"onnx_latency"}


def test_the_report_can_be_compared_with_a_commit_of_it(tiny, tmp_path):
    shutil.copytree(tiny.path / "reports", tmp_path / "reports")
    shutil.copy(tiny.path / "params.yaml", tmp_path)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "a run")):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "stages.tools.compare", "HEAD", "--json"],
        cwd=tmp_path,
        env=tiny.environment | {"PYTHONPATH": str(tiny.path)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["metrics"]
    assert {line["verdict"] for line in found} == {"equal"}
    metrics = json.loads((tiny.path / "reports/metrics.json").read_text(encoding="utf-8"))
    named = {
        f"{group}.{name}": value for group in metrics for name, value in metrics[group].items()
    }
    compared = {line["metric"]: line["after"] for line in found}
    assert {name: compared[name] for name in named} == pytest.approx(named, abs=1e-4)
    assert any(name.startswith("latency_ms.") for name in compared)


def test_what_cannot_be_measured_is_a_row_that_says_why(tiny):
    table = (tiny.path / "artifacts/dtype_bench/rows.csv").read_text(encoding="utf-8")
    gpu = [line for line in table.splitlines() if ",cuda," in line]
    assert gpu
    assert all("no CUDA device" in line for line in gpu) or os.path.exists("/dev/nvidiactl")  # noqa: PTH110


def test_dvc_shows_plots_metrics_and_params(tiny):
    for command in (["plots", "show"], ["metrics", "show"], ["params", "diff"], ["dag"]):
        done = tiny.run(*tiny.dvc(*command))
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr, done.stderr
    page = (tiny.path / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "Accuracy against sparsity" in page


def test_a_stage_run_alone_gives_the_bytes_of_the_pipeline(tiny):
    directory = tiny.path / "artifacts/iterative_prune/seed-0"
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    # DVC's cache links are read-only copies; the stage replaces the directory, not the files.
    assert tiny.stage("iterative_prune", "--seed", "0").returncode == 0
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_kept_models_are_as_sparse_as_their_rows_say(tiny):
    from safetensors.numpy import load_file

    from stages.lib.core import records

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
    import numpy as np
    from safetensors.numpy import load_file

    from stages.lib.core import paths, records

    labels = np.load(tiny.path / "data/prepared/test_labels.npy")
    for stage in SEEDED - {"latency_bench"}:
        directory = tiny.path / f"artifacts/{stage}/seed-0"
        predictions = load_file(directory / "predictions.safetensors")
        rows = [row for row in records.read(directory / "rows.csv") if row.layer == "all"]
        assert len(predictions) == len(rows) > 0
        for row in rows:
            name = paths.prediction_name(
                row.method, row.target_sparsity, row.weight_bits, row.times_smaller
            )
            predicted = predictions[name]
            assert (predicted == labels).mean() == pytest.approx(row.test_accuracy, abs=1e-6)


def test_equal_budget_spends_what_iterative_pruning_had_spent(tiny):
    from stages.lib.core import records

    def spent(stage):
        rows = records.read(tiny.path / f"artifacts/{stage}/seed-0/rows.csv")
        return {(row.method, row.target_sparsity): row.extra_epochs for row in rows}

    iterative, equal = spent("iterative_prune"), spent("equal_budget")
    assert equal[("baseline_long", 0.0)] == max(iterative.values())
    assert equal[("finetune_long", 0.6)] == iterative[("iterative", 0.6)]


# In front of a program: what imports torch or this repository, itself or through others, fails.
ALONE = """
import sys
class Refuse:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "stages"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse)
"""


def programs_of_the_readme():
    """The lines that run what is deployed: the fastest, and the smallest."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Deploy\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_lines_of_the_readme_run_what_is_deployed(tiny):
    import numpy as np
    from safetensors.numpy import load_file

    from stages.lib.core import paths, records

    fastest, smallest = programs_of_the_readme()
    for program in (fastest, smallest):
        assert len([line for line in program.splitlines() if line]) <= 6
    card = json.loads((tiny.path / "artifacts/deploy/model_card.json").read_text(encoding="utf-8"))
    for role, command in (
        ("fastest", ("-I", "-c", ALONE + fastest)),
        ("smallest", ("-c", smallest)),
    ):
        about = card[role]["chosen"]
        assert about["file"] in command[-1]
        done = tiny.run(sys.executable, *command)
        assert (done.returncode, done.stderr) == (0, "")
        source = tiny.path / about["made"]["source"]
        stored = load_file(source.with_name("predictions.safetensors"))
        rows = records.read(source.with_name("rows.csv"))
        (name,) = [
            paths.prediction_name(
                row.method, row.target_sparsity, row.weight_bits, row.times_smaller
            )
            for row in rows
            if row.model == about["made"]["source"]
        ]
        said = [int(digit) for digit in re.findall(r"\d+", done.stdout)]
        np.testing.assert_array_equal(said, stored[name][: len(said)])
        assert len(said) == 8


def test_every_stage_leaves_its_time(tiny):
    times = {file.stem for file in (tiny.path / "artifacts/times").iterdir()}
    assert {"prepare_data", "report", "finetune-0", "controls-0"} <= times


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
def test_a_torn_input_stops_the_stage_with_a_line_that_names_it(tiny, file, stage):
    path = tiny.path / file
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    try:
        done = tiny.stage(stage, *(("--seed", "0") if stage in SEEDED else ()))
    finally:
        path.write_bytes(whole)
    assert done.returncode == 2
    assert file in done.stderr
    assert "dvc repro" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_foreign_table_stops_the_report_with_a_line_that_names_it(tiny):
    path = tiny.path / "artifacts/latency_bench/seed-0/rows.csv"
    whole = path.read_bytes()
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    try:
        done = tiny.stage("report")
    finally:
        path.write_bytes(whole)
    assert done.returncode == 2
    assert "artifacts/latency_bench/seed-0/rows.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_of_another_width_is_refused(tiny):
    tiny.change("model.width", 6)
    try:
        done = tiny.stage("global_prune", "--seed", "0")
    finally:
        tiny.change("model.width", TINY["model"]["width"])
    assert done.returncode == 2
    assert "train_baseline/seed-0/model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("sparsity", "words"), [(0.999, "cannot be reached"), (0.0001, "nothing at all")]
)
def test_an_impossible_structured_setting_says_so(tiny, sparsity, words):
    tiny.change("structured_prune.sparsities", [sparsity])
    before = (tiny.path / "artifacts/structured_prune/seed-0/rows.csv").read_bytes()
    try:
        done = tiny.stage("structured_prune", "--seed", "0")
    finally:
        tiny.change("structured_prune.sparsities", TINY["structured_prune"]["sparsities"])
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert (tiny.path / "artifacts/structured_prune/seed-0/rows.csv").read_bytes() == before


def test_a_typo_in_the_last_section_stops_dvc_before_any_work(tiny):
    tiny.change("report.sparsityy", 0.6)
    try:
        done = tiny.run(*tiny.dvc("repro"))
    finally:
        del tiny.params["report"]["sparsityy"]
        tiny.write_params()
    assert done.returncode != 0
    assert "report.sparsityy: unknown key; the nearest known one is sparsity" in done.stderr
    assert "Running stage 'report'" not in done.stdout
    assert "Traceback" not in done.stderr


def test_interrupted_runs_end_in_the_same_bytes(tiny, tmp_path):
    """A second clone, killed in three ways on its way, arrives at what the first one has."""
    expected = comparable(tiny.hashes())
    clone = Repository(tmp_path / "clone", TINY)
    kills = ((signal.SIGKILL, True, 5), (signal.SIGKILL, False, 7), (signal.SIGINT, True, 9))
    for kind, whole_group, seconds in kills:
        process = subprocess.Popen(
            clone.dvc("repro"),
            cwd=clone.path,
            env=clone.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        if whole_group:
            os.killpg(process.pid, kind)
        else:
            # The stage that runs is left an orphan, at work while the next repro starts.
            process.send_signal(kind)
        process.wait()
    clone.repro()
    assert comparable(clone.hashes()) == expected
    leftovers = [
        path for path in itertools.chain(clone.path.rglob("*.partial")) if ".dvc" not in path.parts
    ]
    assert not leftovers


def test_going_back_to_earlier_params_trains_nothing(tiny):
    """DVC's run cache holds what ran before."""
    tiny.change("finetune.epochs", 3)
    assert "finetune@0" in tiny.repro()
    tiny.change("finetune.epochs", TINY["finetune"]["epochs"])
    assert tiny.repro() <= ALWAYS | {"report"}


def test_a_change_reruns_what_depends_on_it_and_nothing_else(tiny):
    """One change after another, each on top of the last."""
    assert tiny.repro() == ALWAYS
    changes = {key: (value, expected) for key, value, expected in CHANGES}
    for key in RUN:
        value, expected = changes[key]
        tiny.change(key, value)
        assert tiny.repro() == expected | ALWAYS, key


@pytest.mark.parametrize(
    ("key", "expected"),
    # Left out: what changes the stages themselves, and what one alone of two outputs depends on.
    [(key, found) for key, _, found in WRITTEN_DOWN if key not in ("seeds", "model.width")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_dvc_yaml_lets_a_change_reach_what_it_should(key, expected):
    """The stages that read a param, and all that comes after them."""
    with open("dvc.yaml", encoding="utf-8") as file:  # noqa: PTH123
        stages = yaml.safe_load(file)["stages"]
    section = key.partition(".")[0]
    reached = {name for name, stage in stages.items() if section in stage.get("params", [])}
    made = {name: [str(next(iter(out))) if isinstance(out, dict) else out for out in stage["outs"]]
            for name, stage in stages.items()}  # fmt: skip
    while True:
        outputs = {out for name in reached for out in made[name]}
        more = {
            name
            for name, stage in stages.items()
            if any(_overlap(dep, out) for dep in stage["deps"] for out in outputs)
        }
        if more <= reached:
            break
        reached |= more
    assert of_seed(reached) - ALWAYS == expected - ALWAYS


def _overlap(one, other):
    """Whether one path is the other, or inside it; seeds are written alike."""
    one, other = (
        f"{path}/".replace("${seeds[0]}", "SEED").replace("${item.seed}", "SEED")
        for path in (one, other)
    )
    return one.startswith(other) or other.startswith(one)


def test_every_section_has_its_change_written_down():
    from stages.lib.core import params

    assert {key.partition(".")[0] for key, _, _ in WRITTEN_DOWN} == set(params.SECTIONS)


def test_the_tiny_params_cover_the_default_ones():
    with open("params.yaml", encoding="utf-8") as file:  # noqa: PTH123
        default = yaml.safe_load(file)
    assert default.keys() == TINY.keys()
