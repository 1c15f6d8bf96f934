"""Both reports and their figures, on made-up runs whose truth is known."""

import dataclasses
import math
import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from shown_runs import FINDINGS, RUNS, SELECTION, a_choice, a_row, a_run, drawn

from stages.lib.core import methods
from stages.lib.core.methods import Look, Method
from stages.lib.report import charts, context, figures, html, latency_figures, markdown, words
from stages.lib.report.run import TORCH


def changed(run, table, **columns):
    """The run with other columns in one of its tables: values, or functions of the table."""
    return dataclasses.replace(run, **{table: getattr(run, table).assign(**columns)})


def rendered(run):
    """The Markdown report."""
    return markdown.render(run, FINDINGS, figures.build(run), "figures")


def without(run, table, lines):
    return dataclasses.replace(run, **{table: getattr(run, table)[~lines(getattr(run, table))]})


def unusual_runs():
    """Settings that params.yaml allows and that leave something unmeasured."""
    run = a_run((0,))
    families = (methods.UNSTRUCTURED, methods.STRUCTURED)
    pruning = [one.name for one in methods.of_family(*families)]
    return {
        "nothing pruned": without(run, "rows", lambda rows: rows.method.isin(pruning)),
        "no layer alone": dataclasses.replace(
            without(run, "rows", lambda rows: rows.layer != ".all"), best=run.best[:0]
        ),
        "no other format": without(run, "formats", lambda table: table.dtype != "float32"),
        "ResNet-152 alone": without(run, "formats", lambda table: table.network == "baseline"),
        "per channel alone": dataclasses.replace(
            without(run, "rows", lambda rows: rows.method.str.endswith("_tensor")),
            layers=run.layers[run.layers.granularity == "channel"],
        ),
        "4 bits alone": dataclasses.replace(
            without(run, "rows", lambda rows: rows.weight_bits.isin([2, 8, 16])),
            layers=run.layers[run.layers.bits == 4],
        ),
        "nothing timed": changed(run, "latencies", latency_ms=math.nan, latency_iqr_ms=math.nan),
        "no file to deploy": dataclasses.replace(
            without(run, "rows", lambda rows: rows.model != ""),
            agreements=run.agreements[:0],
            sizes=run.sizes[:0],
        ),
    }


@pytest.mark.parametrize("name", [*RUNS, *unusual_runs()])
def test_the_report_is_written_without_gaps(name):
    run = RUNS[name]() if name in RUNS else unusual_runs()[name]
    shown = drawn(name)[1] if name in RUNS else figures.build(run)
    text = markdown.render(run, FINDINGS, shown, "figures")
    assert not re.search(
        r"\b(nan|None|inf)\b", text + html.render(run, FINDINGS, shown).split("<script")[0]
    )
    for figure in shown.values():
        assert f"(figures/{figure.name}.svg)" in text
        # Every table has as many cells in each row as in its head.
        assert all({len(row) for row in table.rows} <= {len(table.headers)}
                   for _, table in figure.tables)  # fmt: skip
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
    run, shown = drawn("everything")
    assert markdown.render(run, FINDINGS, shown, "figures") == rendered(a_run())
    assert html.render(run, FINDINGS, shown) == html.render(
        a_run(), FINDINGS, figures.build(a_run())
    )


def test_names_from_a_users_data_and_network_are_no_markdown():
    text = rendered(RUNS["much"]())
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
    new = Method("snip", "SNIP, global", "controls", methods.UNSTRUCTURED,
                 Look("#123456", "triangle-left"))  # fmt: skip
    tuned = dataclasses.replace(
        new, name="snip_finetune", title="SNIP + fine-tuning", continues="snip", training="finetune"
    )
    monkeypatch.setattr(
        methods, "METHODS", methods.METHODS | {one.name: one for one in (new, tuned)}
    )
    run = a_run()
    rows = [a_row(seed, one.name, 0.8, 0.9) for seed in run.seeds for one in (new, tuned)]
    run = dataclasses.replace(run, rows=pd.concat([run.rows, pd.DataFrame(rows)]))
    shown = figures.build(run)
    for name in ("accuracy", "size"):
        specification = str(shown[name].panels[0].chart.to_dict())
        assert "SNIP, global" in specification
        assert "#123456" in specification
        assert any("SNIP" in cell for _, table in shown[name].tables for row in table.rows
                   for cell in row)  # fmt: skip
    assert "SNIP, global" in [panel.title for panel in shown["recovery"].panels]
    assert charts.looks(["snip", "snip_finetune"]) == {
        "SNIP, global": charts.Look("#123456", "triangle-left", True),
        "SNIP + fine-tuning": charts.Look("#123456", "triangle-left", False),
    }
    assert "SNIP + fine-tuning" in html.render(run, FINDINGS, shown)
    assert "SNIP + fine-tuning" in markdown.render(run, FINDINGS, shown, "figures")


def test_packed_files_are_compared_with_the_baseline_and_stay_apart_by_size():
    run, shown = drawn("everything")
    lines = run.summary[run.summary.method.isin(["packed", "packed_quantized"])]
    assert list(lines.smaller) == [40_000 / 4_100, 40_000 / 820, 40_000 / 4_100]
    assert (lines.seeds == 3).all()
    table = shown["packed"].tables[0][1]
    assert [row[1] for row in table.rows] == ["10 ×", "50 ×", "10 ×"]
    assert all(row[6].startswith("-") for row in table.rows)


def test_latencies_are_medians_over_seeds_and_say_why_there_is_none():
    run, shown = drawn("everything")
    int8 = run.timed[(run.timed.method == "onnx_baseline_int8") & (run.timed.batch_size == 1)]
    assert int8.speedup.item() == pytest.approx(5)
    assert int8.repetitions.item() == 27
    missing = [row for row in shown["engines"].tables[0][1].rows if row[-1]]
    assert [row[4:8] for row in missing] == [("64", "", "", "")]
    assert missing[0][-1] == "could not be run"


@pytest.mark.parametrize("name", ["everything", "much"])
def test_every_ratio_is_the_quotient_of_two_latencies_shown(name):
    run = RUNS[name]()
    table = latency_figures.engine_table(run)
    shown = {(*row[:2], row[4]): row for row in table.rows}
    for (_, _, batch), row in shown.items():
        if row[5]:
            baseline = shown["dense baseline", TORCH, batch]
            assert float(row[7].split()[0]) == pytest.approx(
                float(baseline[5]) / float(row[5]), rel=0.01
            )
    # The baseline has one latency, everywhere.
    of_format = next(row for row in figures.build(run)["formats"].tables[0][1].rows
                     if row[0].startswith("baseline") and row[3] == "1")  # fmt: skip
    assert of_format[8] == shown["dense baseline", TORCH, "1"][5] == "2"


def front_of(run):
    """The names of the networks on the Pareto front of latency."""
    return [row[0] for row in latency_figures.latency(run).tables[0][1].rows if row[-1]]


def test_a_latency_with_a_wide_iqr_is_shown_and_not_ranked():
    run = a_run((0,))
    fast = run.latencies.method == "onnx_structured_global_finetune_int8"
    wide = run.latencies.latency_iqr_ms.where(~fast, 0.31 * run.latencies.latency_ms)
    name = "structured, global + fine-tuning, ONNX Runtime int8, 80 %"
    assert name in front_of(run)
    assert "unranked" not in run.remarks
    run = changed(run, "latencies", latency_iqr_ms=wide)
    assert name not in front_of(run)
    assert "unranked" in run.remarks
    rows = latency_figures.engine_table(run).rows
    assert [row[7] for row in rows if row[0].endswith("80 %, int8")] == ["not ranked"] * 2


def test_a_masked_network_is_never_the_fastest():
    run = a_run((0,))
    masked = run.latencies.method == "onnx_finetune_float32"
    times = run.latencies.latency_ms.where(~masked, 0.001)
    run = changed(run, "latencies", latency_ms=times, latency_iqr_ms=0.0)
    assert front_of(run)
    assert "global + fine-tuning, ONNX Runtime, 95 %" not in front_of(run)


@pytest.mark.parametrize(
    ("method", "bits", "sparsity", "name"),
    [
        ("baseline", 32, 0, "dense baseline"),
        ("onnx_baseline_int8", 8, 0, "dense baseline, int8"),
        ("onnx_baseline_int8_entropy", 8, 0, "dense baseline, int8 (entropy)"),
        ("onnx_finetune_float32", 32, 0.98, "global + fine-tuning, 98 %"),
        ("onnx_structured_layer_finetune_int8", 7, 0.6,
         "structured, per layer + fine-tuning, 60 %, int8"),
    ],
)  # fmt: skip
def test_a_network_is_called_the_same_in_every_engine(method, bits, sparsity, name):
    run = a_run((0,))
    line = run.latencies[:1].assign(method=method, weight_bits=bits, target_sparsity=sparsity)
    run = dataclasses.replace(run, latencies=pd.concat([run.latencies, line]))
    assert latency_figures.engine_lines(run).network.iloc[-1 if method != "baseline" else 0] == name


def test_that_zeros_alone_bring_no_speed_is_told_in_numbers():
    run, shown = drawn("everything")
    assert "with 95 % of its weights zero" in shown["engines"].seen
    assert "1.02 to 1.02 times" in shown["engines"].seen
    alone = without(run, "latencies", lambda table: table.method == "onnx_baseline_float32")
    assert latency_figures.no_gain(alone) is None


def test_the_selection_is_shown_as_it_is():
    run, shown = drawn("everything")
    table = context.recommended(run)
    assert table.rows[0] == (
        "smallest.packed", "pruned and packed, 50 × (the smallest of 3)",
        "820 B (48.8 × smaller)", "0.4 [-0.6, 1.4]", "94.6 % (92.6–96.6)", "not timed",
    )  # fmt: skip
    assert table.rows[1][:2] == ("fastest: none", "no network meets it; nearest: ONNX Runtime int8")
    for text in (
        markdown.render(run, FINDINGS, shown, "figures"),
        html.render(run, FINDINGS, shown).replace("\u00a0", " "),
    ):
        assert "nothing saves: the baseline" in text
        assert "300 images cannot tell these apart" in text
        assert "at most 1 percentage point of validation accuracy lost, at most 1,000 bytes" in text
        assert re.search(r"0\.4 ms.{0,50}5 × speedup", text)


def test_a_choice_that_cannot_be_ranked_says_so():
    # Its own latency is steady, so it is the baseline's that is not.
    choice = a_choice("slow", "finetune", 40_000, 2.5, ranked=False)
    unsteady = choice | {"latency_iqr_ms": 2.5}
    budgets = [
        {"losses": [loss], "note": "", "smallest": choice, "fastest": fastest}
        for loss, fastest in ((0.01, unsteady), (0.02, choice))
    ]
    run = dataclasses.replace(a_run(), selection=SELECTION | {"budgets": budgets})
    text = rendered(run)
    assert "2.5 ms (not ranked" in text
    assert "2.5 ms (the baseline's is not ranked" in text
    assert (
        "speedup</span>"
        not in html.render(run, FINDINGS, figures.build(run)).split("recommended")[1]
    )


@pytest.mark.parametrize(
    ("factor", "trusted"), [(0.7, False), (0.9, True), (1.2, True), (1.6, False)]
)
def test_a_masked_network_that_takes_other_time_than_the_baseline_is_a_warning(factor, trusted):
    run = a_run((0,))
    times = run.latencies.latency_ms.where(
        run.latencies.method != "global", 2.0 * factor * run.latencies.batch_size**0.5
    )
    run = changed(run, "latencies", latency_ms=times)
    assert f"{factor:.2f} to {factor:.2f} times" in words.text("control", run=run)
    assert ("busy" not in run.remarks) == trusted


def test_refused_layers_are_told_of_when_there_are_more_than_the_classifier():
    filters = a_run().filters
    assert context.refused(filters) is None
    reason = filters.layer.map({"conv1": "a layer norm"}).fillna("its outputs are the classes")
    table = context.refused(filters.assign(prunable="no", reason=reason))
    assert table.rows == [
        ("a layer norm", "conv1", "1"), ("its outputs are the classes", "conv2, classifier", "2")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("test", "accuracy", "chance", "warned", "few"),
    [
        (1000, 0.52, 0.5, True, False), (1000, 0.55, 0.5, False, False),
        (1000, 0.11, 0.1, True, False), (1000, 0.15, 0.1, False, False),
        # Nearly all images are of one class.
        (400, 0.98, 0.98, True, False), (50, 0.6, 0.5, True, True),
        (199, 0.9, 0.5, False, True), (200, 0.9, 0.5, False, False),
    ],
)  # fmt: skip
def test_a_baseline_at_chance_and_few_images_are_warnings(test, accuracy, chance, warned, few):
    run = a_run((0,))
    accuracies = run.rows.test_accuracy.where(run.rows.method != "baseline", accuracy)
    meta = run.meta | {"images": {"train": 9, "validation": 9, "test": test}}
    run = dataclasses.replace(
        changed(run, "rows", test_accuracy=accuracies), meta=meta, chance=chance
    )
    assert ("at_chance" in run.remarks) == warned
    assert ("few_images" in run.remarks) == few


def test_warnings_stand_before_any_number():
    run = a_run((0,))
    meta = run.meta | {"images": run.meta["images"] | {"test": 50}}
    run = changed(
        dataclasses.replace(run, meta=meta, chance=1.0), "latencies",
        latency_iqr_ms=lambda table: table.latency_ms,
        latency_ms=lambda table: table.latency_ms.where(table.method != "global", 9.0),
    )  # fmt: skip
    assert run.remarks == ["at_chance", "few_images", "one_seed", "busy", "unranked"]
    page = html.render(run, FINDINGS, figures.build(run))
    for text, end in ((page, "The baseline</p>"), (rendered(run), "## Best")):
        for name in run.remarks:
            assert words.paragraphs(name, run=run)[0] in text.split(end)[0]


def test_error_bars_are_intervals_where_there_are_any():
    run, shown = drawn("everything")
    keys = ["method", "target_sparsity", "weight_bits", "times_smaller"]
    known = run.rows[run.rows.layer == ".all"][keys].drop_duplicates()
    run = dataclasses.replace(run, intervals=known.assign(low=0.123, high=0.987))
    text = html.render(run, FINDINGS, figures.build(run)).replace("\u00a0", " ")
    assert "95 % confidence intervals over seeds and test images" in text
    assert "(12.3–98.7)" in text
    assert "standard deviation over seeds" in shown["accuracy"].reading
