"""What is deployed, and what is said of it: the files, the selection and the card."""

import dataclasses
import hashlib
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import toys
import yaml
from kept_networks import SEEDS, TEST, VALIDATION, Kept, plenty
from safetensors.numpy import save_file
from scipy import stats

from stages import package
from stages.lib.analysis.selection import FASTEST, SMALLEST
from stages.lib.compression import storage_sizes
from stages.lib.core import hardware, methods, outputs, paths, records
from stages.lib.core.stage import run_stage
from stages.lib.deploy import folder as deployed
from stages.lib.models import checkpoints

ROOT = Path(__file__).parents[2]
ROWS = paths.stage_directory("latency_bench") / paths.ROWS
ALWAYS_THERE = {
    "README.md", "model_card.json", "labels.txt", "predict.py", "unpack.py", "requirements.txt",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the default params; its files, which hold no networks, are neither
    looked into nor executed.
    """
    for file in (paths.PARAMS, *paths.PIPELINES):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    monkeypatch.chdir(tmp_path)
    line = dict.fromkeys(records.FILE_SIZE)
    monkeypatch.setattr(storage_sizes, "line", lambda row, network: line | {"method": row.method})
    alone = dict.fromkeys(("file", "bytes", "layout", "unpacked")) | {"note": "it is made up"}
    monkeypatch.setattr(deployed, "made_runnable", lambda *_: dict(alone))
    return tmp_path


def latency_lines(networks):
    """What latency_bench says of them, beside a larger batch and half precision."""
    for (method, target, bits, engine), latency in networks.latencies.items():
        for row in networks.rows:
            if (row.method, row.target_sparsity, row.weight_bits) == (method, target, bits):
                line = dict.fromkeys(records.LATENCY, "") | {
                    "seed": row.seed, "method": method, "engine": engine,
                    "target_sparsity": target, "weight_bits": bits, "device": "cpu",
                    "batch_size": 1, "threads": 1, "latency_ms": latency.milliseconds,
                    "latency_iqr_ms": latency.iqr_ms, "repetitions": 40, "model": row.model,
                }  # fmt: skip
                yield from (
                    line,
                    line | {"batch_size": 64, "latency_ms": 1e-6},
                    line | {"engine": "torch bfloat16", "latency_ms": 1e-6},
                    line | {"device": "cuda", "latency_ms": 1e-6},
                )


def put_images(part, count):
    for kind, array in (
        ("images", np.zeros((count, 1, 8, 8), np.uint8)),
        ("labels", np.ones(count, np.int64)),
    ):
        np.save(paths.PREPARED / paths.array_name(part, kind), array)


def leave(networks, **changes):
    """Writes what the stages before would have left; changes: of the params, `section__key`."""
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for name, value in ({"package__max_accuracy_drop": 0.01} | changes).items():
        section, key = name.split("__")
        values[section][key] = value
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    outputs.write_json(
        paths.PREPARED / paths.META,
        {
            "source": "digits", "classes": ["nought", "one"], "mean": [0.25], "std": [0.5],
            "images": {"train": 800, "validation": VALIDATION, "test": TEST},
            "image_shape": [1, 8, 8], "checksum": "abc", "unreadable_count": 0, "unreadable": [],
            "counts": {"train": [400, 400], "validation": [500, 500], "test": [400, 600]},
        },
    )  # fmt: skip
    put_images("train", 800)
    outputs.write_json(paths.HARDWARE, hardware.describe())
    for stage in methods.stages():
        rows = [row for row in networks.rows if methods.METHODS[row.method].stage == stage]
        for seed in networks.seeds:
            directory = paths.stage_directory(stage, seed)
            records.write(directory / paths.ROWS, [row for row in rows if row.seed == seed])
    for part, images, file in (
        ("validation", VALIDATION, paths.VALIDATION_PREDICTIONS),
        ("test", TEST, paths.PREDICTIONS),
    ):
        put_images(part, images)
        correct = networks.correct(part, images)
        for stage in methods.stages():
            for index, seed in enumerate(networks.seeds):
                classes = {
                    key.name: right[index].astype(np.int64)
                    for key, right in correct.items()
                    if methods.METHODS[key.method].stage == stage and len(right) > index
                }
                save_file(classes, paths.stage_directory(stage, seed) / file)
    for row in networks.rows:
        Path(row.model).write_bytes(row.model.encode())
        # As what DVC links from its cache.
        Path(row.model).chmod(0o444)
    outputs.write_csv(ROWS, records.LATENCY, latency_lines(networks))


def run():
    run_stage(package.main, name="package", argv=[])
    return json.loads((paths.DEPLOY / paths.MODEL_CARD).read_text(encoding="utf-8"))


@pytest.mark.usefixtures("folder")
def test_the_files_are_there_and_the_card_tells_of_them(capsys):
    networks = plenty()
    test = [0.91, 0.95, 0.92]
    networks.packed(20.0, bytes=[2_000, 1_900, 2_000], accuracy=[0.94, 0.95, 0.945], test=test)
    leave(networks, report__confidence=0.9)
    card = run()
    assert capsys.readouterr().err == ""
    assert card["confidence"] == 0.9
    wilson = stats.binomtest(900, TEST).proportion_ci(0.9, method="wilson")
    # Agresti and Coull's has Wilson's centre; the seeds agree.
    test_of_fast = card[FASTEST]["chosen"]["test"]
    assert [test_of_fast["low"], test_of_fast["high"]] == pytest.approx(wilson[:2], abs=1e-3)
    assert {file.name for file in paths.DEPLOY.iterdir()} == {
        "smallest.packed", "fastest.onnx", *ALWAYS_THERE,
    }  # fmt: skip
    selected = json.loads((paths.stage_directory("package") / paths.SELECTION).read_text("utf-8"))
    for role in (SMALLEST, FASTEST):
        one, told = card[role]["chosen"], selected["recommended"][role]["choice"]
        data = (paths.DEPLOY / one["file"]).read_bytes()
        assert data == Path(one["source"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(data).hexdigest()
        assert told["file"] == one["source"]
        assert told | {"file": one["file"]} == {name: one[name] for name in told}
    small, fast = (card[role]["chosen"] for role in (SMALLEST, FASTEST))
    assert small["source"] == "artifacts/compress/seed-1/packed-0-4-20.packed"
    assert (small["bytes"], small["times_smaller"]) == (1_900, pytest.approx(40_000 / 1_900, 1e-5))
    assert small["validation_loss"]["estimate"] == 0.005
    assert small["test"]["accuracy"] == pytest.approx(sum(test) / 3, abs=1e-6)
    assert small["latency_ms"] is None
    this = small["this_seed"]
    assert (this["seed"], this["validation_accuracy"], this["test_accuracy"]) == (1, 0.95, 0.95)
    assert small["made"]["stages"] == ["train_baseline", "compress"]
    assert small["made"]["params"]["compress"]["distillation"] == 0.5
    assert (fast["latency_ms"], fast["speedup"], fast["engine"]) == (0.4, 5.0, "onnxruntime")
    assert card["data"]["classes"] == ["nought", "one"]
    assert card["machine"].keys() >= {"cpu", "torch", "python", "onnxruntime"}
    assert card["budgets"] == {"max_accuracy_drop": 0.01}
    page = (paths.DEPLOY / "README.md").read_text(encoding="utf-8")
    for one in (small, fast):
        assert f"{one['file']}, needs the repository that made it, as it is made up" in page
        assert f"`{one['load']}`" in page


@pytest.mark.usefixtures("folder")
def test_what_nothing_meets_is_said_in_a_line_and_on_the_card(capsys):
    leave(plenty(), package__max_bytes=500)
    card = run()
    told = capsys.readouterr().err.splitlines()
    for line, role in zip(told, (SMALLEST, FASTEST), strict=True):
        assert line.startswith(f"package: {role}: no ")
    assert {file.name for file in paths.DEPLOY.iterdir()} == ALWAYS_THERE
    for role in (SMALLEST, FASTEST):
        assert card[role]["chosen"] is None
        assert "package.max_bytes (500)" in card[role]["reason"]
    nearest = card[SMALLEST]["nearest"][0]
    assert nearest["misses"] == {"max_accuracy_drop": 4.0, "max_bytes": 0.6}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [("training", [0.25], [0.5]), ("half", [0.5], [0.5]), ("imagenet", [0.449], [0.226])],
)
def test_the_card_says_how_images_are_normalized_where_the_file_does_not(normalize, mean, std):
    leave(plenty(), model__normalize=normalize)
    card = run()
    wanted = card[SMALLEST]["chosen"]["input"]
    assert wanted["shape"] == ["n", 1, 8, 8]
    assert wanted["normalize"]["mean"] == pytest.approx(mean)
    assert wanted["normalize"]["std"] == pytest.approx(std)
    assert card[FASTEST]["chosen"]["input"]["normalize"] == "inside the file"


def test_a_line_of_sizes_is_of_the_file_itself(tmp_path):
    file = tmp_path / "network.safetensors"
    size = checkpoints.save_model(toys.convnet(), file)
    row = dataclasses.replace(Kept().rows[0], model=str(file), bytes_on_disk=size)
    line = storage_sizes.line(row, "convnet")
    assert set(line) == set(records.FILE_SIZE)
    assert line["dense_bytes"] == line["file_bytes"] == size == file.stat().st_size


@pytest.mark.usefixtures("folder")
def test_every_kept_network_has_its_sizes_and_the_same_results_give_the_same_bytes():
    leave(plenty())

    def written():
        run()
        folders = (paths.DEPLOY, paths.stage_directory("package"))
        return {file: file.read_bytes() for folder in folders for file in folder.iterdir()}

    first = written()
    assert first == written()
    lines = first[paths.stage_directory("package") / paths.ROWS].decode().splitlines()
    sized = [line.split(",")[1] for line in lines[1:]]
    # ONNX files have none.
    assert sized == ["baseline"] * 3 + ["structured_global_finetune"] * 3 + ["packed"] * 6


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("method", "bits", "loader", "stages"),
    [
        ("iterative", 32, "checkpoints", ["iterative_prune"]),
        ("affine_channel", 8, "linear", ["int_quantize"]),
        ("onnx_finetune_int8", 8, "onnxruntime", ["global_prune", "finetune", "export_onnx"]),
        ("onnx_structured_global_finetune_float32", 32, "onnxruntime",
         ["structured_prune", "export_onnx"]),
        ("packed", 4, "packed", ["compress"]),
    ],
)  # fmt: skip
def test_the_card_says_how_a_file_is_read_and_which_stages_made_it(method, bits, loader, stages):
    leave(Kept().add(method, bytes=10, accuracy=0.95, bits=bits))
    one = run()[SMALLEST]["chosen"]
    module, _, function = one["load"].partition("(")[0].rpartition(".")
    assert loader in module
    assert callable(getattr(importlib.import_module(module), function))
    assert one["made"]["stages"] == ["train_baseline", *stages]
    own = set(stages) - {"global_prune"}
    assert one["made"]["params"].keys() >= own | {"data", "model", "training", "compute"}


@pytest.mark.usefixtures("folder")
def test_the_card_says_how_a_file_is_read_in_the_engine_that_was_fastest():
    networks = plenty().in_openvino("onnx_baseline_int8", 0.0, 8, accuracy=0.946, ms=0.1)
    leave(networks)
    one = run()[FASTEST]["chosen"]
    assert (one["file"], one["engine"], one["latency_ms"]) == ("fastest.onnx", "openvino", 0.1)
    assert one["load"] == 'openvino.compile_model(path, "CPU")'
    assert one["validation_loss"]["estimate"] == pytest.approx(0.004)


BASELINE_ROWS = paths.stage_directory("train_baseline", SEEDS[-1]) / paths.ROWS


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        (ROWS, lambda text: text[:-9], f"{ROWS}: cut short"),
        (ROWS, lambda text: "a,b\n1,2\n", f"{ROWS}: not the columns"),
        (BASELINE_ROWS, lambda text: text.partition("\n")[0] + "\n",
         "artifacts/train_baseline/seed-0/rows.csv: no baseline of every"),
    ],
)  # fmt: skip
def test_a_table_that_is_not_whole_stops_it_with_a_line(file, change, told, capsys):
    leave(plenty())
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 2
    assert not paths.DEPLOY.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
