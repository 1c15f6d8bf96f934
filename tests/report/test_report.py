"""Tables, findings, exports and pictures, on made-up runs whose truth is known."""

import dataclasses
import json
import math
import re

import pandas as pd
import pytest
from made_up import formats, quantized_layers, right, row

from stages.lib.analysis import exports, findings, tables
from stages.lib.report import charts, figures, markdown

POINTS = (0.4, 0.8)
METHODS = (
    "uniform", "global", "finetune", "iterative", "structured_layer", "structured_global",
    "structured_layer_finetune", "structured_global_finetune",
)  # fmt: skip


def made_up(accuracy, seeds=(0, 1)):
    """Rows of a run in which method m has accuracy[m] at each of POINTS, the baseline 0.9."""
    rows = [row(seed, "baseline", 0.0, 0.9 + 0.01 * seed) for seed in seeds]
    for seed in seeds:
        rows += [
            row(seed, method, point, value + 0.01 * seed)
            for method, values in accuracy.items()
            for point, value in zip(POINTS, values, strict=True)
        ]
        rows += [
            row(seed, "layer_alone", p, 0.9 - p / 2, layer=name)
            for name in ("conv|1", "fc")
            for p in POINTS
        ]
        rows.append(row(seed, "best_per_layer", 0.0, 0.8))
        rows += [
            row(seed, f"{scheme}_tensor", 0.0, 0.85, bits=bits, bytes_on_disk=1000)
            for scheme in ("affine", "symmetric")
            for bits in (8, 16)
        ]
    return pd.DataFrame(rows)


GOOD = {
    "uniform": (0.5, 0.1), "global": (0.8, 0.3), "finetune": (0.9, 0.85), "iterative": (0.9, 0.89),
    "structured_layer": (0.3, 0.1), "structured_global": (0.3, 0.1),
    "structured_layer_finetune": (0.85, 0.6), "structured_global_finetune": (0.85, 0.6),
}  # fmt: skip


def judged(run):
    """The findings of a run of which each seed's network is right on as many of 100 images as its
    accuracy says.
    """
    whole = run.rows[(run.rows.layer == "all") & (run.rows.weight_bits == 32)]
    correct = {
        (method, target, 32): right(lines.test_accuracy, 100)
        for (method, target), lines in whole.groupby(["method", "target_sparsity"])
    }
    return findings.judge(
        findings.Evidence(
            rows=run.rows, layers=run.layers, formats=run.formats, correct=correct, sparsity=0.8,
            confidence=0.95, tolerance=0.005, isa=run.hardware["isa"], chance=0.5,
        )
    )  # fmt: skip


def unusual_runs():
    """Settings that params.yaml allows and that leave something unmeasured."""
    only_gpu = formats()
    half = formats(gpu=(1.0, 2.0, 3.0))
    layers, rows = quantized_layers(), made_up(GOOD)
    per_channel = rows.assign(method=rows.method.str.replace("_tensor", "_channel"))
    return {
        "no common sparsity": {"rows": rows[rows.method.isin(["baseline", "uniform"]) | (
            rows.weight_bits < 32) | (rows.method == "layer_alone")]},
        "no GPU and nothing else asked for": {"formats": only_gpu[only_gpu.device == "cuda"]},
        "float16 alone": {"formats": half[half.dtype == "float16"]},
        "ResNet-152 alone": {"formats": only_gpu[only_gpu.network == "resnet152"]},
        "per channel alone": {"layers": layers.assign(granularity="channel"), "rows": per_channel},
        "4 bits alone": {
            "layers": layers[layers.bits == 8].assign(bits=4),
            "rows": rows[rows.weight_bits != 16].replace({"weight_bits": {8: 4}}),
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", unusual_runs())
def test_what_was_not_measured_leaves_no_hole(tmp_path, name):
    run = dataclasses.replace(a_run(), **unusual_runs()[name])
    text = rendered(run)
    assert "nan" not in text
    assert "None" not in text
    for one in figures.build(run):
        charts.save(
            charts.picture(one.title, one.reading, one.panels), tmp_path / f"{one.name}.svg"
        )
    json.dumps(exports.metrics(run.rows, run.sparsity, run.max_drop), allow_nan=False)


def test_summary_is_mean_and_sample_deviation_over_seeds():
    summary = tables.summary(made_up(GOOD, seeds=(0, 1, 2)))
    one = summary[(summary.method == "global") & (summary.target_sparsity == 0.8)].iloc[0]
    assert one.test_accuracy == pytest.approx(0.31)
    assert one.test_accuracy_std == pytest.approx(0.01)
    assert one.seeds == 3


def test_sparsest_is_chosen_on_validation_alone():
    rows = made_up(GOOD)
    rows.loc[rows.method == "finetune", "test_accuracy"] = 0.0
    assert tables.sparsest(rows, "finetune", 0.06) == 0.8
    assert tables.sparsest(rows, "finetune", 0.01) == 0.4
    assert tables.sparsest(rows, "uniform", 0.01) == 0.0
    assert tables.sparsest(rows, "unheard of", 0.01) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(10, "10 B"), (2048, "2 KiB"), (1_373_634, "1.31 MiB"), (3 * 2**30, "3072 MiB")],
)
def test_sizes_are_binary(count, text):
    assert tables.size(count) == text


def test_markdown_escapes_what_would_break_a_table():
    assert "conv\\|1" in tables.markdown(("layer",), [("conv|1",)])


def test_metrics_are_a_handful_finite_and_hold_no_latency():
    metrics = exports.metrics(made_up(GOOD), 0.8, 0.06)
    assert "NaN" not in json.dumps(metrics)
    assert metrics == {
        "test_accuracy": {
            "baseline": 0.905, "global": 0.305, "finetune": 0.855, "iterative": 0.895,
            "structured_finetune": 0.605, "int8": 0.85,
        },
        "sparsest_within": {
            "global": 0.0, "finetune": 0.8, "iterative": 0.8, "structured_finetune": 0.4,
        },
        "bytes_on_disk": {"baseline": 4000, "int8": 1000},
    }  # fmt: skip


def test_metrics_choose_among_methods_by_validation_not_by_test():
    rows = made_up(GOOD)
    better = (rows.method == "structured_layer_finetune") | (rows.method == "symmetric_tensor")
    rows.loc[better, "test_accuracy"] = 1.0
    rows.loc[rows.method == "structured_global_finetune", "validation_accuracy"] += 0.01
    rows.loc[rows.method == "affine_tensor", "validation_accuracy"] += 0.01
    accuracies = exports.metrics(rows, 0.8, 0.06)["test_accuracy"]
    assert accuracies["structured_finetune"] == 0.605
    assert accuracies["int8"] == 0.85


def test_of_8_bit_files_the_smallest_counts_though_a_larger_is_better():
    rows = made_up(GOOD)
    large = rows.method == "affine_tensor"
    rows.loc[large, ["bytes_on_disk", "validation_accuracy", "test_accuracy"]] = [1001, 0.99, 0.99]
    assert exports.metrics(rows, 0.8, 0.06)["bytes_on_disk"]["int8"] == 1000
    assert exports.metrics(rows, 0.8, 0.06)["test_accuracy"]["int8"] == 0.85


def test_metrics_leave_out_what_was_not_run():
    rows = made_up({"global": GOOD["global"]})
    metrics = exports.metrics(rows[rows.weight_bits == 32], 0.5, 0.06)
    assert metrics == {
        "test_accuracy": {"baseline": 0.905},
        "sparsest_within": {"global": 0.0},
        "bytes_on_disk": {"baseline": 4000},
    }


def test_there_is_a_plot_for_every_method_also_where_it_was_not_run():
    plots = exports.accuracy_plots(made_up({"global": GOOD["global"]}))
    assert set(plots) == set(exports.COMPARED) > set(METHODS)
    assert plots["global"].to_dict("list") == {"sparsity": [0.4, 0.8], "global": [0.805, 0.305]}
    assert plots["iterative"].empty


def a_run(accuracy=GOOD, seeds=(0, 1), gpu=None):
    latencies = pd.DataFrame(
        {
            "seed": seed, "method": method, "target_sparsity": point, "device": "cpu",
            "batch_size": batch, "threads": 2, "latency_ms": 1.0, "latency_iqr_ms": 0.1,
            "runs": 9, "relative_to_baseline": 1.0 - point / 2, "model": "",
        }
        for seed in seeds for batch in (1, 64)
        for method, point in (("baseline", 0.0), ("global", 0.8), ("structured_layer", 0.8))
    )  # fmt: skip
    best = pd.DataFrame(
        {"seed": seed, "layer": layer, "sparsity": 0.4, "validation_accuracy": 0.9}
        for seed in seeds for layer in ("conv|1", "fc")
    )  # fmt: skip
    pruned = pd.DataFrame(
        {"seed": seed, "layer": layer, "filters": 4, "coupled_with": "",
         "prunable": "yes" if layer == "conv|1" else "no",
         "reason": math.nan if layer == "conv|1" else "its outputs are the classes"}
        for seed in seeds for layer in ("conv|1", "fc")
    )  # fmt: skip
    inventory = pd.DataFrame(
        {"parameter": name, "kind": kind, "shape": "2", "count": 2, "macs": 2,
         "prunable": prunable}
        for name, kind, prunable in (("a.weight", "Linear", "yes"), ("a.bias", "Linear", "no"))
    )  # fmt: skip
    return markdown.Run(
        seeds=list(seeds), rows=made_up(accuracy, seeds), best=best,
        layers=quantized_layers(seeds=seeds), formats=formats(gpu=gpu), latencies=latencies,
        filters=pruned, inventory=inventory, network="convnet", weights="none",
        meta={"images": {"train": 3, "validation": 2, "test": 1}, "image_shape": [1, 8, 8],
              "classes": ["a", "b"], "checksum": "0", "source": "digits", "unreadable_count": 0},
        hardware={"cpu": "c", "machine": "m", "cores": 2, "isa": ["avx2"], "gpus": [],
                  "system": "s", "python": "3", "torch": "2", "torchvision": "0"},
        sparsity=0.8, max_drop=0.01,
        curves=pd.DataFrame(
            {"seed": seed, "epoch": epoch, "train_accuracy": 0.1 * epoch,
             "validation_accuracy": 0.1 * epoch}
            for seed in seeds for epoch in (1, 2)
        ),
    )  # fmt: skip


PICTURES = (
    "accuracy", "close_up", "recovery", "size", "ladder", "latency", "structured", "formats",
    "sensitivity", "bits", "error", "learning",
)  # fmt: skip


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("gpu", [None, (1.0, 2.0, 3.0)])
def test_the_page_is_written_without_gaps(seeds, gpu):
    run = a_run(seeds=seeds, gpu=gpu)
    text = rendered(run)
    assert "nan" not in text
    assert "None" not in text
    assert ("±" in text.split("| method")[0]) == (len(seeds) > 1) or "deviation" in text
    for name in PICTURES:
        assert f"({name}.svg)" in text
    # Every table has as many cells in each row as in its head.
    for table in text.split("\n\n"):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1


def drawn(name):
    (one,) = (figure for figure in figures.build(a_run()) if figure.name == name)
    return charts.picture(one.title, one.reading, one.panels)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_and_the_same_each_time(tmp_path, name):
    for file in ("one.svg", "two.svg"):
        charts.save(drawn(name), tmp_path / file)
    svg = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert svg.count("<path") > 5
    assert "NaN" not in svg
    # Vega numbers its gradients and clips through the life of a process.
    again = (tmp_path / "two.svg").read_text(encoding="utf-8")
    numbers = re.compile(r"(?<=gradient_)\d+|(?<=clip)\d+")
    assert numbers.sub("", svg) == numbers.sub("", again)


def test_refused_layers_are_told_of_when_there_are_more_than_the_classifier():
    run = a_run()
    pictures = {name: f"{name}.svg" for name in PICTURES}
    assert "keep all their filters" not in markdown.render(run, [], pictures)
    filters = run.filters.assign(
        prunable="no",
        reason=["a layer norm runs over its channels", "its outputs are the classes"] * 2,
    )
    text = markdown.render(dataclasses.replace(run, filters=filters), [], pictures)
    assert "2 of the network's 2 layers keep all their filters" in text
    assert "| a layer norm runs over its channels |" in text


def busy(factor):
    run = a_run()
    control = run.latencies.method == "global"
    latencies = run.latencies.assign(
        relative_to_baseline=run.latencies.relative_to_baseline.where(~control, factor)
    )
    return dataclasses.replace(run, latencies=latencies)


def rendered(run):
    return markdown.render(run, judged(run), {name: f"{name}.svg" for name in PICTURES})


@pytest.mark.parametrize(
    ("factor", "trusted"), [(0.7, False), (0.9, True), (1.2, True), (1.6, False)]
)
def test_a_masked_network_that_takes_other_time_than_the_dense_one_is_a_warning(factor, trusted):
    text = rendered(busy(factor))
    assert f"{factor:.2f} to {factor:.2f} times" in text
    assert ("do not trust the ratios" not in text) == trusted


def of_images(test, accuracy, classes=2):
    run = a_run(seeds=(0,))
    rows = run.rows.copy()
    rows.loc[rows.method == "baseline", "test_accuracy"] = accuracy
    meta = run.meta | {
        "images": {"train": 9, "validation": 9, "test": test},
        "classes": [f"class {index}" for index in range(classes)],
    }
    return rendered(dataclasses.replace(run, rows=rows, meta=meta))


@pytest.mark.parametrize(
    ("test", "accuracy", "classes", "chance", "few"),
    [
        (1000, 0.9, 2, False, False),
        (1000, 0.52, 2, True, False),
        (1000, 0.55, 2, False, False),
        (1000, 0.11, 10, True, False),
        (1000, 0.15, 10, False, False),
        (50, 0.6, 2, True, True),
        (199, 0.9, 2, False, True),
        (200, 0.9, 2, False, False),
    ],
)
def test_a_baseline_at_chance_and_few_images_are_warnings(test, accuracy, classes, chance, few):
    text = of_images(test, accuracy, classes)
    assert ("The baseline is no better than chance" in text) == chance
    assert (f"Only {test} test images" in text) == few
