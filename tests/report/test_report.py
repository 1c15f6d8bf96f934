"""Both reports and their figures, on made-up runs whose truth is known."""

import base64
import dataclasses
import io
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from shown_runs import (
    BASELINE,
    FASTEST,
    FINDINGS,
    NAMES,
    RUNS,
    SELECTION,
    SMALLEST,
    a_choice,
    a_row,
    a_run,
    drawn,
)

from stages.lib.analysis.tables import KEYS
from stages.lib.core import methods, records
from stages.lib.core.methods import Look, Method
from stages.lib.report import (
    charts,
    class_figures,
    context,
    cost_figures,
    figures,
    html,
    latency_figures,
    markdown,
    terminal,
    words,
)
from stages.lib.report.run import TORCH

ONE_SEED = a_run((0,))


def changed(run, table, **columns):
    """The run with other columns in one of its tables: values, or functions of the table."""
    return dataclasses.replace(run, **{table: getattr(run, table).assign(**columns)})


def without(run, **lines):
    """The run without these lines of its tables: functions of the table."""
    tables = {name: getattr(run, name) for name in lines}
    return dataclasses.replace(
        run, **{name: tables[name][~lines[name](tables[name])] for name in lines}
    )


def reports(run, shown=None):
    """Both reports: the Markdown and the page."""
    shown = shown or figures.build(run)
    page = html.render(run, FINDINGS, shown).replace("\u00a0", " ")
    return markdown.render(run, FINDINGS, shown, "figures"), page


def everything(table):
    return table.seed >= 0


# Settings that params.yaml allows and that leave something unmeasured.
UNUSUAL = {
    "nothing pruned": without(ONE_SEED, rows=lambda rows: rows.method.isin(NAMES)),
    "no layer alone": without(ONE_SEED, rows=lambda rows: rows.layer != ".all", best=everything),
    "no other format": without(ONE_SEED, formats=lambda table: table.dtype != "float32"),
    "ResNet-152 alone": without(ONE_SEED, formats=lambda table: table.network == "baseline"),
    "per channel alone": without(
        ONE_SEED,
        rows=lambda rows: rows.method.str.endswith("_tensor"),
        layers=lambda layers: layers.granularity == "tensor",
    ),
    "4 bits alone": without(
        ONE_SEED,
        rows=lambda rows: rows.weight_bits.isin([2, 8, 16]),
        layers=lambda layers: layers.bits != 4,
    ),
    "nothing timed": changed(ONE_SEED, "latencies", latency_ms=math.nan, latency_iqr_ms=math.nan),
    "no file to deploy": without(
        ONE_SEED,
        rows=lambda rows: rows.model != "",
        agreements=everything,
        sizes=everything,
        int8_layers=everything,
    ),
}


@pytest.mark.parametrize("name", [*RUNS, *UNUSUAL])
def test_the_report_is_written_without_gaps(name):
    run, shown = drawn(name) if name in RUNS else (UNUSUAL[name], figures.build(UNUSUAL[name]))
    text, page = reports(run, shown)
    assert not re.search(r"\b(nan|None|inf)\b", text + page.split("<script")[0])
    for figure in shown.values():
        assert f"(figures/{figure.name}.svg)" in text
        assert all(
            len(row) == len(table.headers) for _, table in figure.tables for row in table.rows
        )
    assert ("standard deviation over 3 seeds" in text) == (len(run.seeds) == 3)


@pytest.mark.parametrize("draw", figures.FIGURES, ids=lambda draw: draw.__name__)
def test_a_picture_is_drawn_and_the_same_each_time(tmp_path, draw):
    figure, texts = draw(drawn("everything")[0]), []
    for folder in (tmp_path / "one", tmp_path / "two"):
        figures.save([figure], folder)
        svg = (folder / f"{figure.name}.svg").read_text(encoding="utf-8")
        # Vega numbers its gradients and clips through the life of a process.
        texts.append(re.sub(r"(?<=gradient_)\d+|(?<=clip)\d+", "", svg))
    assert texts[0] == texts[1]
    assert texts[0].count("<path") > 5
    assert "NaN" not in texts[0]


def test_the_same_run_gives_the_same_reports():
    assert reports(*drawn("everything")) == reports(a_run())


def test_names_from_a_users_data_and_network_are_no_markdown():
    text, _ = reports(*drawn("much"))
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or []]
    links = {child.attrGet("href") for child in inline if child.type == "link_open"}
    assert links == {"../docs/packed-format.md", "../docs/evaluation.md"}
    pictures = [child.attrGet("src") for child in inline if child.type == "image"]
    assert all(re.fullmatch(r"figures/\w+\.svg", source) for source in pictures)
    raw = {token.content.strip() for token in [*tokens, *inline] if "html" in token.type}
    assert all(re.fullmatch(r"</?details>(<summary>[^<>]+</summary>)?", part) for part in raw)
    assert "https://" not in text
    headings = [tokens[i + 1].content for i, one in enumerate(tokens) if one.type == "heading_open"]
    assert "lines" not in headings
    assert "\\</script\\>\\<script\\>alert(1)\\</script\\>" in text


def test_a_method_is_shown_everywhere_by_its_line_in_the_registry(monkeypatch):
    look = Look("#123456", "triangle-left")
    new = Method("snip", "SNIP, global", "controls", methods.UNSTRUCTURED, look)
    tuned = Method("snip_finetune", "SNIP + fine-tuning", "controls", methods.UNSTRUCTURED, look,
                   "snip", training="finetune")  # fmt: skip
    both = {one.name: one for one in (new, tuned)}
    monkeypatch.setattr(methods, "METHODS", methods.METHODS | both)
    run = a_run()
    rows = pd.DataFrame(a_row(seed, name, 0.8, 0.9) for seed in run.seeds for name in both)
    run = dataclasses.replace(run, rows=pd.concat([run.rows, rows]))
    shown = figures.build(run)
    specification = str(shown["accuracy"].panels[0].chart.to_dict())
    for text in (specification, *(str(table) for table in shown["accuracy"].tables)):
        assert "SNIP, global" in text
    assert "#123456" in specification
    assert [charts.look(name).hollow for name in both] == [True, False]
    assert all("SNIP + fine-tuning" in report for report in reports(run, shown))


def test_packed_files_are_compared_with_the_baseline_and_stay_apart_by_size():
    run, shown = drawn("everything")
    lines = run.summary[run.summary.method.isin(["packed", "packed_quantized"])]
    assert list(lines.smaller) == [40_000 / 4_100, 40_000 / 820, 40_000 / 4_100]
    assert [row[1] for row in shown["packed"].tables[0][1].rows] == ["10 ×", "50 ×", "10 ×"]


def test_latencies_are_medians_over_seeds_and_say_why_there_is_none():
    run, shown = drawn("everything")
    int8 = run.timed[(run.timed.method == "onnx_baseline_int8") & (run.timed.batch_size == 1)]
    assert int8.repetitions.item() == 27
    rows = shown["engines"].tables[0][1].rows
    assert [row[4:] for row in rows if row[-1]] == [("64", *[""] * 4, "0", "could not be run")]
    # A network is called the same in every engine.
    assert {row[0] for row in rows if row[1] == "ONNX Runtime"} == {
        "dense baseline", "dense baseline, int8", "dense baseline, int8 (entropy)",
        "global + fine-tuning, 95 %", "structured, global + fine-tuning, 80 %, int8",
    }  # fmt: skip
    told = r"95 % of its weights zero.* takes 1\.02 times"
    assert re.search(told, shown["engines"].seen)


@pytest.mark.parametrize("name", ["everything", "much"])
def test_every_ratio_is_the_quotient_of_two_latencies_shown(name):
    run = RUNS[name]()
    rows = latency_figures.engine_table(run).rows
    shown = {(*row[:2], row[4]): row for row in rows if row[5]}
    for (_, _, batch), row in shown.items():
        baseline = float(shown["dense baseline", TORCH, batch][5])
        speedup = float(row[7].removesuffix(" ×"))
        assert speedup == pytest.approx(baseline / float(row[5]), rel=0.01)
    # The baseline has one latency, everywhere.
    of_formats = latency_figures.formats(run).tables[0][1].rows
    assert of_formats[0][8] == shown["dense baseline", TORCH, "1"][5] == "2"


def test_a_format_is_the_fastest_only_if_none_has_a_lower_latency():
    run = RUNS["everything"]()
    timed = run.timed_formats
    measured = timed[timed.latency_ms.notna()].sort_values("latency_ms")
    (place, quickest), *_ = measured[measured.batch_size == 1].iterrows()
    told = f"{quickest.network} on {quickest.device.upper()}, batch 1: {quickest['dtype']}"
    assert told in latency_figures.formats(run).seen
    # Its latency is of one call, and so of no known spread.
    vars(run)["timed_formats"] = timed.assign(
        latency_iqr_ms=timed.latency_iqr_ms.where(timed.index != place)
    )
    assert (
        f"{quickest.network} on {quickest.device.upper()}"
        not in (latency_figures.formats(run).seen.split("Not measured")[0])
    )


def front_of(run):
    """The names of the networks on the Pareto front of latency."""
    lines = cost_figures.gains(run)
    return list(lines[lines.front & lines.name.str.contains("faster")].network)


def test_a_network_is_shown_in_its_fastest_engine_with_the_accuracy_in_it():
    networks = drawn("everything")[0].networks
    for method, engine, time, accuracy in (
        ("onnx_baseline_int8", "onnxruntime", 0.4, 0.94),
        ("onnx_baseline_int8_entropy", "openvino", 0.405, 0.93),
        ("packed", None, None, 0.945),
    ):
        found = networks[networks.method == method].iloc[0]
        assert found.test_accuracy == pytest.approx(accuracy)
        assert found.low <= found.test_accuracy <= found.high
        if engine:
            assert (found.engine, found.latency_ms) == (engine, pytest.approx(time))


@pytest.mark.parametrize(
    ("method", "name", "iqr", "is_ranked"),
    [
        ("onnx_baseline_int8", "ONNX int8", 0.0029, True),
        ("onnx_baseline_int8", "ONNX int8", 0.0031, False),
        # A masked network does the baseline's work: what it seems to save is noise.
        ("onnx_finetune_float32", "global + fine-tuning, ONNX, 95 %", 0.0, False),
    ],
)
def test_masked_networks_and_latencies_with_a_wide_iqr_are_not_ranked(method, name, iqr, is_ranked):
    lines = ONE_SEED.latencies
    chosen = lines.method == method
    lines = lines.mask(chosen, lines.assign(latency_ms=0.01, latency_iqr_ms=iqr))
    run = dataclasses.replace(ONE_SEED, latencies=lines)
    assert (name in front_of(run)) == is_ranked
    wide = (lines.latency_iqr_ms > 0.3 * lines.latency_ms).any()
    assert ("unranked" in run.remarks) == wide
    assert ("not ranked" in str(latency_figures.engine_table(run).rows)) == wide


def test_the_selection_is_shown_as_it_is():
    run, shown = drawn("everything")
    table = context.recommended(run)
    assert table.rows[0][0] == "smallest.packed"
    assert table.rows[0][2:] == (
        "820 B (48.8 × smaller)", "0.4 (−0.6 to 1.4)", "94.6 % (92.6–96.6)", "not timed", "",
    )  # fmt: skip
    assert table.rows[1][:2] == ("fastest: none", "no network meets it; nearest: ONNX int8")
    for text in reports(run, shown):
        assert "nothing saves: the baseline" in text
        assert "at most 1 percentage point of validation accuracy lost, at most 1,000 bytes" in text
        assert re.search(r"0\.4 ms.{0,50}5 × faster", text)
        # Budgets that share a row are named once.
        losses = re.findall(r"[\d.]+ (?:to [\d.]+ )?percentage points(?= \||: |</b>)", text)
        assert losses == ["0 to 0.5 percentage points", "2 percentage points"]
        assert "Sizes are those of the deployed seed's file" in text.replace("&#39;", "'")


def test_a_choice_that_cannot_be_ranked_says_so():
    # Its own latency is steady, so it is the baseline's that is not.
    choice = a_choice("slow", "finetune", 40_000, 2.5, ranked=False)
    budgets = [
        {"losses": [0.01], "note": "", "smallest": choice, "fastest": fastest}
        for fastest in (choice, choice | {"latency_iqr_ms": 2.5})
    ]
    text, page = reports(dataclasses.replace(a_run(), selection=SELECTION | {"budgets": budgets}))
    assert "2.5 ms in torch (not ranked" in text
    assert "2.5 ms in torch (the baseline's is not ranked" in text
    assert "faster</span>" not in page.split("Best per accuracy budget")[1]


def test_a_size_out_of_reach_is_a_row_with_its_reason():
    reason = "40 bytes are asked for; without a single code it takes 900"
    refused = [(seed, "packed", 0.0, 8, 1000.0, reason) for seed in range(3)]
    run = dataclasses.replace(a_run(), refused=pd.DataFrame(refused, columns=records.REFUSED))
    assert context.not_made(run.refused).rows == [
        ("pruned, quantized and packed, 1000 ×", "0, 1, 2", reason)
    ]
    for shown in reports(run):
        assert reason in shown


def test_a_teacher_that_is_not_the_baseline_is_named_with_its_accuracy():
    taught = {"parameters": 3_000_000, "validation_accuracy": 0.9, "test_accuracy": 0.892}
    run = a_run()
    named = {"teacher": {"name": "resnet56"}, "structured_prune": {"distillation": 0}}
    for shown in reports(dataclasses.replace(run, params={**run.params, **named}, teacher=taught)):
        assert "Taught by resnet56: 3,000,000 parameters, 89.2 % on test" in shown
    for shown in reports(run):
        assert "Taught by" not in shown


def test_refused_layers_are_told_of_when_there_are_more_than_the_classifier():
    filters = ONE_SEED.filters
    assert context.refused(filters) is None
    reason = filters.reason.where(filters.layer != "conv1", "a layer norm")
    assert context.refused(filters.assign(prunable="no", reason=reason)).rows == [
        ("a layer norm", "conv1", "1"), ("its outputs are the classes", "conv2, classifier", "2")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "accuracy", "masked", "remark"),
    [
        (1000, 0.52, 1.0, "at_chance"), (1000, 0.55, 1.0, None),
        (199, 0.9, 1.0, "few_images"), (200, 0.9, 1.0, None),
        # A masked network does the baseline's work, so another latency is the machine's.
        (1000, 0.9, 0.7, "busy"), (1000, 0.9, 0.9, None), (1000, 0.9, 1.2, None),
        (1000, 0.9, 1.6, "busy"),
    ],
)  # fmt: skip
def test_chance_few_images_and_a_busy_machine_are_warnings(images, accuracy, masked, remark):
    run = dataclasses.replace(ONE_SEED, meta=ONE_SEED.meta | {"images": {"test": images}})
    accuracies = run.rows.test_accuracy.where(run.rows.method != "baseline", accuracy)
    table = run.latencies
    times = table.latency_ms.where(table.method != "global", 2 * masked * table.batch_size**0.5)
    run = changed(changed(run, "rows", test_accuracy=accuracies), "latencies", latency_ms=times)
    assert set(run.remarks) - {"one_seed"} == ({remark} if remark else set())
    assert f"took {masked:.2f} times" in words.text("control", run=run)


def test_classes_of_different_sizes_have_a_balanced_accuracy_and_their_names_are_shown_safely():
    labels = ONE_SEED.labels["test"]
    # Nine of ten images are of the first class, and the baseline always answers with it.
    uneven = np.where(np.arange(len(labels)) % 10 == 0, 1, 0)
    right = {name: one._replace(test=np.zeros_like(one.test)) for name, one in
             ONE_SEED.predicted.items()}  # fmt: skip
    names = ["two\nlines", "<script>|"]
    run = dataclasses.replace(
        ONE_SEED, labels=ONE_SEED.labels | {"test": uneven}, predicted=right,
        meta=ONE_SEED.meta | {"classes": names + ONE_SEED.meta["classes"][2:]},
    )  # fmt: skip
    for text in reports(run):
        assert "Balanced accuracy, in which each class counts alike: 50.0 % before" in " ".join(
            text.split()
        )
        assert "<script>|" not in text
    assert "two\nlines" not in reports(run)[0]
    for text in reports(ONE_SEED):
        assert "Balanced accuracy" not in text


def test_warnings_stand_before_any_number():
    meta = ONE_SEED.meta | {"images": ONE_SEED.meta["images"] | {"test": 50}}
    run = changed(
        dataclasses.replace(ONE_SEED, meta=meta, chance=1.0), "latencies",
        latency_iqr_ms=lambda table: table.latency_ms,
        latency_ms=lambda table: table.latency_ms.where(table.method != "global", 9.0),
    )  # fmt: skip
    assert run.remarks == ["at_chance", "few_images", "one_seed", "busy", "unranked"]
    for text, end in zip(reports(run), ("![", "<figure"), strict=True):
        for name in run.remarks:
            assert words.paragraphs(name, run=run)[0] in text.split(end)[0]


def test_error_bars_are_intervals_where_there_are_any():
    run, shown = drawn("everything")
    known = run.rows[run.rows.layer == ".all"][list(KEYS)].drop_duplicates()
    run = dataclasses.replace(run, intervals=known.assign(low=0.123, high=0.987))
    _, text = reports(run)
    assert "95 % confidence intervals over seeds and test images" in text
    assert "(12.3–98.7)" in text
    assert "standard deviation over seeds" in shown["accuracy"].reading


def with_choices(smallest, fastest, seeds=(0, 1, 2)):
    """A run with these recommended files."""
    found = {"reason": "", "nearest": []}
    recommended = {
        "smallest": found | {"choice": smallest}, "fastest": found | {"choice": fastest},
    }  # fmt: skip
    return dataclasses.replace(a_run(seeds), selection=SELECTION | {"recommended": recommended})


@pytest.mark.parametrize(
    ("smallest", "fastest", "title"),
    [
        (SMALLEST, FASTEST, "48.8 × smaller (−0.4 points) or 5 × faster (0.0 points)"),
        (SMALLEST, None, "48.8 × smaller (−0.4 points)"),
        (None, FASTEST, "5 × faster (0.0 points)"),
        (BASELINE, BASELINE, "Nothing is smaller or faster within 1 percentage point of accuracy"),
        (SMALLEST, FASTEST | {"speedup": None}, "48.8 × smaller (−0.4 points)"),
    ],
)
def test_the_result_is_the_title_of_both_reports(smallest, fastest, title):
    run = with_choices(smallest, fastest)
    text, page = reports(run)
    assert words.text("title", run=run) == title
    assert text.startswith(f"# {title}\n")
    assert f"<h1>{title}</h1>" in page
    # The words under the chart name the same files.
    seen = figures.build(run)["pareto"].seen
    chosen = [one for one in (smallest, fastest) if one and one is not BASELINE]
    assert all(one["words"] in seen for one in chosen)
    assert seen.count(" at 9") == len(chosen)
    alone = "ONNX Runtime alone makes the unpruned network 2 × faster (0.0 points)."
    for report in (text, page):
        head = report.replace("\u00a0", " ").partition("Test accuracy against")[0]
        assert (alone in head) == bool(fastest and fastest["speedup"] and fastest is FASTEST)


def test_a_report_without_the_course_has_its_answer_and_what_was_run_alone():
    run = a_run()
    params = run.params | {"report": run.params["report"] | {"course": False}}
    shown = figures.build(dataclasses.replace(run, params=params))
    assert {"formats", "error"} & set(shown) == set()
    for report in reports(dataclasses.replace(run, params=params), shown):
        for told in ("the course", "The course", "Appendix", FINDINGS[0].title):
            assert told not in report.split("<script")[0]
        assert "What was run" in report
    for report in reports(run):
        assert report.index("What was run") < report.index("Appendix: the course")


@pytest.mark.parametrize(("seeds", "ticks"), [((0, 1, 2), True), ((0,), False)])
def test_one_seed_never_shows_a_green_tick(seeds, ticks):
    _, page = reports(a_run(seeds))
    appendix = page.split('<section id="findings">')[1]
    assert ("✓" in appendix) == ticks
    assert ('class="badge reproduced"' in appendix) == ticks


def test_every_network_that_saves_has_a_point_and_chosen_ones_their_numbers_as_labels():
    run = a_run()
    lines = cost_figures.gains(run)
    assert not lines.method.isin(["global", "finetune", "iterative", "onnx_finetune_float32"]).any()
    labels = {label for label in lines.label if label}
    assert labels == {
        "the baseline", "48.8 × smaller\npruned, quantized and\npacked, 50\u00a0×",
        "5 × faster\nONNX int8 in ONNX\nRuntime",
    }  # fmt: skip
    # The front is not beaten in both.
    for _, part in lines[lines.name != "the baseline"].groupby("name"):
        for one in part[part.front].itertuples():
            better = (part.gain > one.gain) & (part.test_accuracy > one.test_accuracy)
            assert not better.any()


def test_what_compression_costs_each_class_is_in_both_reports():
    run, shown = drawn("everything")
    rows = {row[0]: row for row in shown["classes"].tables[0][1].rows}
    # Of 500 test images, every fiftieth changes, from class b to class a.
    assert rows["b"][1:5] == ("250", "100.0", "96.0", "−4.0 (−6.6 to −1.3)")
    assert rows["a"][3] == "100.0"
    assert shown["classes"].tables[1][1].rows == [("smallest", "b", "a", "0.0", "10.0", "+10.0")]
    text, page = reports(run, shown)
    for report in (text, page):
        assert "The smallest file costs class b most: −4.0 percentage points" in report
        assert "6 right before and wrong now" in report
    assert page.count('<li class="lost"><img src="data:image/png;base64,') == 6
    assert class_figures.changes(run)["smallest"].counts == {"lost": 6, "won": 0, "neither": 0}


@pytest.mark.parametrize(
    ("shape", "kind", "side"), [((1, 8, 8), "png", 8), ((3, 30, 20), "png", 30),
                                ((3, 100, 200), "jpeg", 64)],
)  # fmt: skip
def test_a_thumbnail_is_small_and_has_the_images_colours(shape, kind, side):
    image = np.full(shape, 200, np.uint8)
    image[0] = 90
    source = class_figures.picture(image)
    head, _, data = source.partition(",")
    assert head == f"data:image/{kind};base64"
    found = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(found.size) == side
    pixel = np.atleast_1d(found.getpixel((2, 2)))
    assert np.abs(pixel.astype(int) - image[:, 0, 0]).max() <= 2


def test_throughput_stands_beside_latency():
    run, shown = drawn("everything")
    headers = shown["engines"].tables[0][1].headers
    row = next(
        row for row in shown["engines"].tables[0][1].rows
        if row[0] == "dense baseline, int8" and row[4] == "64"
    )  # fmt: skip
    milliseconds, second = (float(row[headers.index(name)].replace(",", ""))
                            for name in ("latency, ms", "images/s"))  # fmt: skip
    assert second == pytest.approx(64_000 / milliseconds, abs=1)
    assert context.throughput(run, FASTEST) == "20,000 (batch 64)"
    assert context.throughput(run, SMALLEST) == ""


def test_the_last_lines_of_a_run_are_its_answer():
    lines = terminal.closing(SELECTION, Path("artifacts/deploy"), Path("reports/index.html"))
    assert lines == [
        "baseline     95.0 % test, 39.06 KiB, 2 ms an image",
        "recommended  smallest.packed 94.6 % test, 820 B (48.8 × smaller); fastest: none",
        "look         reports/index.html (report), artifacts/deploy/ (files)",
    ]
    recommended = SELECTION["recommended"] | {"fastest": {"choice": FASTEST}}
    told = terminal.closing(SELECTION | {"recommended": recommended}, Path("a"), Path("b"))[1]
    assert told.endswith(
        "5 × faster in ONNX Runtime; ONNX Runtime alone makes the unpruned network 2 × faster"
        " (0.0 points)"
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_an_axis_of_shares_has_a_few_round_ticks_and_none_beyond_all(values):
    low, high = charts.around(values)
    assert low <= min(values) <= max(values) <= high
    ticks = charts.share_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= min(high, 1)
    assert len({f"{100 * tick:.4g}" for tick in ticks}) == len(ticks)
    assert np.ptp(np.diff(ticks)) < 1e-9 if len(ticks) > 2 else True


def test_where_all_are_right_the_axis_ends_there():
    low, high = charts.around([1.0, 1.0])
    assert charts.share_ticks(low, high)[-1] == 1.0
    assert (low, high) == pytest.approx((0.979, 1.001))


def test_a_label_keeps_off_the_lines_of_its_chart():
    x = charts.times("gain", pd.Series([1.0, 50.0]), "×")
    y = charts.shares("test_accuracy", "accuracy", [0.9, 1.0])
    lines = pd.DataFrame({"gain": [1.0], "test_accuracy": [0.95], "label": ["the baseline"]})
    free, off = (
        charts.placed(lines, x, y, 800, 400, strokes).iloc[0]
        for strokes in ([], [(0.1, 0.95, 99, 0.95), (1, 0.93, 1, 0.97)])
    )
    assert free.dy < 0 < free.dy + charts.LINE
    assert off.dx >= charts.GAP
    assert off.dy >= charts.GAP or off.dy + charts.LINE <= -charts.GAP


def test_labels_keep_apart_where_there_is_room():
    x = charts.times("gain", pd.Series([1.0, 50.0]), "×")
    y = charts.shares("test_accuracy", "accuracy", [0.9, 1.0])
    lines = pd.DataFrame(
        {"gain": [1.0, 1.05, 50.0, 20.0], "test_accuracy": [0.95, 0.95, 0.99, 0.91],
         "label": ["first one", "second one", "at the edge\nof two lines", ""]}
    )  # fmt: skip
    placed = charts.placed(lines, x, y, 800, 400)
    across, down = (
        charts._pixels(lines.gain, x, 800),
        400 - charts._pixels(lines.test_accuracy, y, 400),
    )
    boxes = []
    for line, left, top in zip(placed.itertuples(), across, down, strict=True):
        if line.label:
            rows = line.label.split("\n")
            left, top = left + line.dx, top + line.dy
            boxes.append(
                (left, top, left + charts.LETTER * max(map(len, rows)),
                 top + charts.LINE * len(rows))
            )  # fmt: skip
    assert all(box[0] >= 0 and box[2] <= 800 and box[1] >= 0 and box[3] <= 400 for box in boxes)
    assert all(charts._overlap(*pair) == 0 for pair in itertools.combinations(boxes, 2))
