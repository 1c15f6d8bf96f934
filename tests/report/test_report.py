"""Both reports and their figures, on made-up runs whose truth is known."""

import dataclasses
import math
import re
from functools import cache

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from shown_runs import FINDINGS, RUNS, SELECTION, a_choice, a_row, a_run

from stages.lib.core import methods
from stages.lib.core.methods import Look, Method
from stages.lib.report import charts, context, figures, html, latency_figures, markdown
from stages.lib.report.run import TORCH


def changed(run, table, **columns):
    """The run with other columns in one of its tables: values, or functions of the table."""
    return dataclasses.replace(run, **{table: getattr(run, table).assign(**columns)})


def rendered(run):
    """The Markdown report."""
    return markdown.render(run, FINDINGS, figures.build(run), "figures")


@cache
def everything():
    run = a_run()
    return run, figures.build(run)


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
            without(run, "rows", lambda rows: rows.layer != "all"), best=run.best[:0]
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
    drawn = figures.build(run)
    text = markdown.render(run, FINDINGS, drawn, "figures")
    assert not re.search(
        r"\b(nan|None|inf)\b", text + html.render(run, FINDINGS, drawn).split("<script")[0]
    )
    for figure in drawn.values():
        assert f"(figures/{figure.name}.svg)" in text
        # Every table has as many cells in each row as in its head.
        assert all({len(row) for row in table.rows} <= {len(table.headers)}
                   for _, table in figure.tables)  # fmt: skip
    assert ("standard deviation over 3 seeds" in text) == (len(run.seeds) == 3)


@pytest.mark.parametrize("name", sorted(everything()[1]))
def test_a_picture_is_drawn_and_the_same_each_time(tmp_path, name):
    figure = everything()[1][name]
    texts = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        figures.save([figure], folder)
        svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
        # Vega numbers its gradients and clips through the life of a process.
        texts.append(re.sub(r"(?<=gradient_)\d+|(?<=clip)\d+", "", svg))
    assert texts[0] == texts[1]
    assert texts[0].count("<path") > 5
    assert "NaN" not in texts[0]


def test_the_same_run_gives_the_same_reports():
    run, drawn = everything()
    assert markdown.render(run, FINDINGS, drawn, "figures") == rendered(a_run())
    assert html.render(run, FINDINGS, drawn) == html.render(
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
    drawn = figures.build(run)
    for name in ("accuracy", "size"):
        specification = str(drawn[name].panels[0].chart.to_dict())
        assert "SNIP, global" in specification
        assert "#123456" in specification
        assert any("SNIP" in cell for _, table in drawn[name].tables for row in table.rows
                   for cell in row)  # fmt: skip
    assert "SNIP, global" in [panel.title for panel in drawn["recovery"].panels]
    assert charts.looks(["snip", "snip_finetune"]) == {
        "SNIP, global": charts.Look("#123456", "triangle-left", True),
        "SNIP + fine-tuning": charts.Look("#123456", "triangle-left", False),
    }
    assert "SNIP + fine-tuning" in html.render(run, FINDINGS, drawn)
    assert "SNIP + fine-tuning" in markdown.render(run, FINDINGS, drawn, "figures")


def test_packed_files_are_compared_with_the_baseline_and_stay_apart_by_size():
    run, drawn = everything()
    lines = run.summary[run.summary.method.isin(["packed", "packed_quantized"])]
    assert list(lines.smaller) == [40_000 / 4_100, 40_000 / 820, 40_000 / 4_100]
    assert (lines.seeds == 3).all()
    table = drawn["packed"].tables[0][1]
    assert [row[1] for row in table.rows] == ["10 ×", "50 ×", "10 ×"]
    assert all(row[6].startswith("-") for row in table.rows)


def test_latencies_are_medians_over_seeds_and_say_why_there_is_none():
    run, drawn = everything()
    int8 = run.timed[(run.timed.method == "onnx_baseline_int8") & (run.timed.batch_size == 1)]
    assert int8.speedup.item() == pytest.approx(5)
    assert int8.repetitions.item() == 27
    missing = [row for row in drawn["engines"].tables[0][1].rows if row[-1]]
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


def test_a_latency_with_a_wide_iqr_is_shown_and_not_ranked():
    run = a_run()
    fast = run.latencies.method == "onnx_structured_global_finetune_int8"
    wide = run.latencies.latency_iqr_ms.where(~fast, 0.31 * run.latencies.latency_ms)
    assert "Some latencies are not ranked" not in rendered(run)
    run = changed(run, "latencies", latency_iqr_ms=wide)
    assert "Some latencies are not ranked" in rendered(run)
    name = "structured, global + fine-tuning, 80 %, int8"
    assert {row[7] for row in latency_figures.engine_table(run).rows if row[0] == name} == {
        "not ranked"
    }
    on_front = [row for row in latency_figures.latency(run).tables[0][1].rows if row[-1]]
    assert on_front
    assert not any("int8, 80 %" in row[0] for row in on_front)


def test_a_masked_network_is_never_the_fastest():
    run = a_run()
    masked = run.latencies.method == "onnx_finetune_float32"
    run = changed(run, "latencies", latency_ms=run.latencies.latency_ms.where(~masked, 0.001),
                  latency_iqr_ms=0.0)  # fmt: skip
    front = [row[0] for row in latency_figures.latency(run).tables[0][1].rows if row[-1]]
    assert not any("global + fine-tuning, ONNX" in name and "structured" not in name
                   for name in front)  # fmt: skip


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
    run, drawn = everything()
    assert "with 95 % of its weights zero" in drawn["engines"].seen
    assert "1.02 to 1.02 times" in drawn["engines"].seen
    alone = without(run, "latencies", lambda table: table.method == "onnx_baseline_float32")
    assert latency_figures.no_gain(alone) is None


def test_the_selection_is_shown_as_it_is():
    run, drawn = everything()
    table = context.recommended(run)
    assert table.rows[0] == (
        "smallest.packed", "pruned and packed, 50 × (the smallest of 3)",
        "820 B (48.8 × smaller)", "0.4 [-0.6, 1.4]", "94.6 % (92.6–96.6)", "not timed",
    )  # fmt: skip
    assert table.rows[1][:2] == ("fastest: none", "no network meets it; nearest: ONNX Runtime int8")
    for text in (
        markdown.render(run, FINDINGS, drawn, "figures"),
        html.render(run, FINDINGS, drawn).replace("\u00a0", " "),
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
    run = a_run()
    control = run.latencies.method == "global"
    times = 2.0 * factor * run.latencies.batch_size**0.5
    run = changed(run, "latencies", latency_ms=run.latencies.latency_ms.where(~control, times))
    text = rendered(run)
    assert f"{factor:.2f} to {factor:.2f} times" in text
    assert ("do not trust the speedups" not in text) == trusted
    page = html.render(run, FINDINGS, figures.build(run))
    assert ("The machine was busy" in page.split("The baseline</p>")[0]) != trusted


def test_refused_layers_are_told_of_when_there_are_more_than_the_classifier():
    run = a_run()
    assert "keep all their filters" not in rendered(run)
    reasons = {"conv1": "a layer norm runs over its channels"}
    text = rendered(
        changed(run, "filters", prunable="no",
                reason=run.filters.layer.map(reasons).fillna("its outputs are the classes"))
    )  # fmt: skip
    assert "These layers keep all their filters" in text
    assert re.search(r"\| a layer norm runs over its channels +\| conv1 +\| +1 \|", text)


@pytest.mark.parametrize(
    ("test", "accuracy", "chance", "warned", "few"),
    [
        (1000, 0.9, 0.5, False, False),
        (1000, 0.52, 0.5, True, False),
        (1000, 0.55, 0.5, False, False),
        (1000, 0.11, 0.1, True, False),
        (1000, 0.15, 0.1, False, False),
        # Nearly all images are of one class.
        (400, 0.98, 0.98, True, False),
        (50, 0.6, 0.5, True, True),
        (199, 0.9, 0.5, False, True),
        (200, 0.9, 0.5, False, False),
    ],
)
def test_a_baseline_at_chance_and_few_images_are_warnings(test, accuracy, chance, warned, few):
    run = a_run((0,))
    rows = run.rows.assign(
        test_accuracy=run.rows.test_accuracy.where(run.rows.method != "baseline", accuracy)
    )
    meta = run.meta | {"images": {"train": 9, "validation": 9, "test": test}}
    text = rendered(dataclasses.replace(run, rows=rows, meta=meta, chance=chance))
    assert ("The baseline is no better than chance" in text) == warned
    assert (f"Only {test} test images" in text) == few


def test_error_bars_are_intervals_where_there_are_any():
    run, drawn = everything()
    keys = ["method", "target_sparsity", "weight_bits", "times_smaller"]
    known = run.rows[run.rows.layer == "all"][keys].drop_duplicates()
    run = dataclasses.replace(run, intervals=known.assign(low=0.123, high=0.987))
    text = html.render(run, FINDINGS, figures.build(run)).replace("\u00a0", " ")
    assert "95 % confidence intervals over seeds and test images" in text
    assert "(12.3–98.7)" in text
    assert "standard deviation over seeds" in drawn["accuracy"].reading
