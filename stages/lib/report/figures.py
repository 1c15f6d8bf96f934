"""The figures of a run: each picture with what is seen in it, how to read it, and its tables.

The page for browsers, the pictures of the Markdown report and those of `dvc plots show` are all
made of these.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stages.lib.analysis import candidates, ladder, tables
from stages.lib.core import paths
from stages.lib.report import (
    accuracy_charts,
    charts,
    cost_charts,
    deployment_figures,
    quantization_charts,
    report_tables,
)
from stages.lib.report.markdown import Run, control
from stages.lib.report.views import Figure, View, bars, percent, sentence, view


def _range(lines: pd.DataFrame) -> str:
    """The least and the most accurate of some methods at one sparsity, in words."""
    ordered = lines.sort_values("test_accuracy", kind="stable")
    least, most = ordered.iloc[0], ordered.iloc[-1]
    worst = f"{percent(least.test_accuracy)} ({tables.METHODS[least.method]})"
    if len(lines) == 1:
        return worst
    return f"{worst} to {percent(most.test_accuracy)} ({tables.METHODS[most.method]})"


def accuracy(seen: View) -> Figure:
    lines = accuracy_charts.points(seen.summary)
    here = lines[(lines.target_sparsity - seen.run.sparsity).abs() < 1e-9]
    untrained = [charts.LOOKS[method].untrained for method in here.method]
    parts = [
        f"{what} from {_range(group)}"
        for what, group in (
            ("as pruned, test accuracy goes", here[untrained]),
            ("trained afterwards,", here[[not flag for flag in untrained]]),
        )
        if len(group)
    ]
    at = f"With {tables.percent(seen.run.sparsity)} of the weights removed: {'; '.join(parts)}. "
    return Figure(
        "accuracy",
        "Accuracy against sparsity",
        f"{at if parts else ''}The dense network has {percent(seen.dense.test_accuracy)}.",
        "Solid and filled: trained after pruning; dashed and hollow: as pruned. Squares: every"
        f" layer alike. Horizontal line: the dense network. {bars(seen.run)}",
        [accuracy_charts.by_sparsity(seen.summary)],
        [("Every method at every sparsity", report_tables.methods(seen.summary))],
    )


def close_up(seen: View) -> Figure:
    run, lines = seen.run, accuracy_charts.points(seen.summary)
    reached = {
        method: tables.sparsest(run.rows, method, run.max_drop)
        for method, look in charts.LOOKS.items()
        if not look.untrained and not method.startswith("baseline")
    }
    reached = {method: value for method, value in reached.items() if value is not None}
    told = ", ".join(
        f"{tables.METHODS[method]} {tables.percent(value) if value else 'nowhere'}"
        for method, value in sorted(reached.items(), key=lambda pair: -pair[1])
    )
    trained = lines[[not charts.LOOKS[method].untrained for method in lines.method]]
    floor = accuracy_charts.close_up_range(trained, accuracy_charts.dense_accuracy(seen.summary))[0]
    below = int((trained.test_accuracy < floor).sum())
    outside = (
        f" {tables.times(below, 'network')} below {percent(floor)} not shown." if below else ""
    )
    return Figure(
        "close_up",
        "Close up: the ten points below the dense network",
        f"Sparsest within {report_tables.points(run.max_drop)} of the dense network, on validation:"
        f" {told or 'nothing was trained after pruning'}.{outside}",
        f"Methods that train after pruning. Horizontal line: the dense network. {bars(run)}",
        [accuracy_charts.close_up(seen.summary)],
        [
            (
                "Every method at one sparsity",
                report_tables.headline(run.rows, seen.summary, run.sparsity, run.max_drop),
            )
        ],
    )


def recovery(seen: View) -> Figure | None:
    found = accuracy_charts.recoveries(seen.summary)
    if found.empty:
        return None
    most = found.sort_values("gain", kind="stable").iloc[-1]
    lost = found[found.gain < 0]
    harmed = (
        f" Fine-tuning cost accuracy in {len(lost)} of {len(found)} cases." if len(lost) else ""
    )
    return Figure(
        "recovery",
        "Recovery: before and after fine-tuning",
        f"The most is recovered by {tables.METHODS[most.method]} at"
        f" {tables.percent(most.removed)}: {percent(most.before)} → {percent(most.after)}"
        f" ({100 * most.gain:+.1f} points, {tables.times(int(most.epochs), 'epoch')}).{harmed}",
        "Hollow: as pruned; filled: after fine-tuning. Horizontal line: the dense network.",
        accuracy_charts.recovery(seen.summary),
        [("Before and after", report_tables.recoveries(found))],
    )


def _front_told(seen: View, cost: str) -> str:
    """The front within the close-up, cheapest first, in words."""
    floor = seen.dense.test_accuracy - accuracy_charts.CLOSE_UP
    front = cost_charts.front(seen.with_casts, cost)
    shown = front[front.test_accuracy >= floor]
    told = "; ".join(
        f"{report_tables.cost_text(line, cost)}: {percent(line.test_accuracy)} ({line.network})"
        for _, line in shown.head(4).iterrows()
    )
    more = f"; and {len(shown) - 4} more" if len(shown) > 4 else ""
    known = seen.with_casts[seen.with_casts[cost].notna()]
    below = int((known.test_accuracy < floor).sum())
    outside = (
        f" {tables.times(below, 'network')} below {percent(floor)} not shown." if below else ""
    )
    return f"On the front: {told}{more}.{outside}"


FRONT = (
    "Stepped line and large marks: the front, networks that no other beats in both; it is drawn"
    " through test accuracies and chose nothing. "
)


def size(seen: View) -> Figure:
    front = cost_charts.front(seen.with_casts, "bytes_on_disk").index
    return Figure(
        "size",
        "Accuracy against bytes on disk",
        _front_told(seen, "bytes_on_disk")
        + " A mask saves no byte by itself: such files are as large as the dense network's.",
        FRONT + bars(seen.run),
        [cost_charts.against_size(seen.with_casts)],
        [
            (
                "Every network by size",
                report_tables.networks(seen.with_casts, "bytes_on_disk", front),
            )
        ],
    )


def latency(seen: View) -> Figure:
    device, batch = candidates.latency_setting(seen.run.latencies)
    front = cost_charts.front(seen.with_casts, "relative_latency").index
    return Figure(
        "latency",
        "Accuracy against latency",
        f"{_front_told(seen, 'relative_latency')} Only networks that were timed are here: the"
        " smaller ones, half formats, and one with zeros in it, which takes the dense one's time.",
        f"{FRONT}{bars(seen.run)}Batch {batch} on {device}; medians over seeds, relative to the"
        " dense float32 network timed in turns with them.",
        [cost_charts.against_latency(seen.with_casts, device, batch)],
        [
            (
                "Every timed network by latency",
                report_tables.networks(seen.with_casts, "relative_latency", front),
            )
        ],
    )


def ladder_of_sizes(seen: View) -> Figure:
    rungs = ladder.rungs(seen.everything, seen.run.formats, seen.run.max_drop)
    files = rungs[rungs.kind == ladder.FILE]
    first, last = files.iloc[0], files.iloc[-1]
    told = f"Measured files go from {tables.size(first.bytes)} ({first['name']})"
    if len(files) > 1:
        told += f" to {tables.size(last.bytes)} ({last['name']}, {first.bytes / last.bytes:.1f} ×)"
    least = rungs.iloc[-1]
    if least.kind == ladder.ESTIMATE:
        told += f"; by calculation down to {tables.size(least.bytes)} ({least['name']})"
    return Figure(
        "ladder",
        "The ladder of sizes",
        f"{told}.",
        "Dark: files as measured; light: what the nonzero numbers would take, calculated. Pruned"
        f" networks are the smallest that lose at most {report_tables.points(seen.run.max_drop)} of"
        " validation accuracy; a bitmap tells with one bit a number which are there.",
        [cost_charts.ladder_of_sizes(rungs)],
        [("Every form", report_tables.ladder_of_sizes(rungs))],
    )


def structured(seen: View) -> Figure:
    timed = seen.run.latencies
    small = timed[timed.method.str.startswith("structured")]
    told = []
    for (device, batch), lines in small.groupby(["device", "batch_size"]):
        means = lines.groupby(["method", "target_sparsity"]).relative_to_baseline.median()
        method, sparsity = means.idxmin()
        told.append(
            f"batch {batch} on {device}: at best {means.min():.2f} × the dense network's time"
            f" ({tables.network(method, 32, sparsity)})"
        )
    return Figure(
        "structured",
        "Fewer MACs, less time?",
        f"{sentence(told, 'no small network was timed')} {control(timed)}".strip(),
        "Each point is a network, relative to the dense one; timed in turns, medians over seeds.",
        cost_charts.structured_latency(timed, seen.summary),
        [("Latencies", report_tables.latencies(timed))],
    )


def formats(seen: View) -> Figure:
    bench, told = seen.run.formats, []
    known = bench[bench.latency_ms.notna()]
    for (network, device), lines in known.groupby(["network", "device"], sort=False):
        batch = lines.batch_size.min()
        line = lines[lines.batch_size == batch].sort_values("latency_ms", kind="stable").iloc[0]
        told.append(
            f"{network} on {device}, batch {batch}: fastest {line['dtype']},"
            f" {tables.milliseconds(line.latency_ms)} ms"
        )
    unmeasured = bench[bench.latency_ms.isna()].note.dropna()
    reasons = ", ".join(dict.fromkeys(str(note).split(";")[0] for note in unmeasured if note))
    missing = (
        f" Not measured: {tables.times(len(unmeasured), 'setting')} ({reasons})." if reasons else ""
    )
    return Figure(
        "formats",
        "Latency by number format and device",
        sentence(told, "no latency was measured") + missing,
        f"Median of repeated calls; the trained network is that of seed {seen.run.seeds[0]}."
        " Logarithmic axes, one for each panel.",
        cost_charts.format_latency(bench),
        [("Every format", report_tables.formats(bench))],
    )


def sensitivity(seen: View) -> Figure | None:
    alone = seen.summary[seen.summary.method == "layer_alone"]
    if alone.empty:
        return None
    point = min(
        set(alone.target_sparsity), key=lambda value: (abs(value - seen.run.sparsity), value)
    )
    here = alone[alone.target_sparsity == point].sort_values("test_accuracy", kind="stable")
    first, last = here.iloc[0], here.iloc[-1]
    return Figure(
        "sensitivity",
        "Sensitivity of each layer",
        f"With {tables.percent(point)} of one layer's weights removed, the network keeps least"
        f" where that layer is {first.layer} ({percent(first.test_accuracy)}) and most where it is"
        f" {last.layer} ({percent(last.test_accuracy)}).",
        "Test accuracy in percent, mean over seeds, with one layer pruned and all others whole.",
        [accuracy_charts.sensitivity(seen.summary)],
        [
            (
                "Layer by sparsity, test accuracy in percent",
                report_tables.sensitivity(seen.summary),
            ),
            (
                "Best trade-off per layer: sparsest that loses at most"
                f" {report_tables.points(seen.run.max_drop)} of validation accuracy",
                report_tables.best_tradeoffs(seen.run.best),
            ),
        ],
    )


def bits(seen: View) -> Figure | None:
    lines = seen.summary[seen.summary.weight_bits < 32]
    if lines.empty:
        return None
    best = lines.sort_values("test_accuracy", kind="stable").drop_duplicates(
        "weight_bits", keep="last"
    )
    widths = [width for width in (2, 3, 4, 8, 16) if width in set(best.weight_bits)]
    told = ", ".join(
        f"{width} bits {percent(best[best.weight_bits == width].test_accuracy.iloc[0])}"
        for width in widths
    ) or "no width"  # fmt: skip
    return Figure(
        "bits",
        "Accuracy with quantized weights",
        f"The best setting at each width: {told}; the dense network has"
        f" {percent(seen.dense.test_accuracy)}.",
        f"Weights rounded without training again, activations in float32. {bars(seen.run)}",
        [quantization_charts.accuracy_by_bits(seen.summary)],
        [
            (
                "Accuracy by width, error as a multiple of S²/12",
                report_tables.bits(seen.summary, seen.run.layers),
            )
        ],
    )


def error(seen: View) -> Figure | None:
    mean = quantization_charts.mean_errors(seen.run.layers)
    if mean.empty:
        return None
    ratio = mean.mse / mean.theory
    wide = ratio[mean.bits >= 8]
    told = f"The measured error is {ratio.min():.2f} to {ratio.max():.2f} times S²/12"
    if len(wide):
        told += f", from 8 bits up {wide.min():.2f} to {wide.max():.2f} times"
    found = [("Error by width", report_tables.errors(mean))]
    by_layer = report_tables.quantized_layers(seen.run.layers)
    return Figure(
        "error",
        "Quantization error against theory",
        f"{told}. S is the step between two neighbouring values, so each further bit divides the"
        " error by four.",
        "Marks: measured, mean over layers and seeds; dashed: S²/12. Logarithmic.",
        [quantization_charts.error_by_bits(seen.run.layers)],
        found + ([by_layer] if by_layer else []),
    )


def learning(seen: View) -> Figure | None:
    curves = seen.run.curves
    if curves is None:
        return None
    last = curves[curves.epoch == curves.epoch.max()]
    return Figure(
        "learning",
        "Training the dense network",
        f"After {tables.times(int(curves.epoch.max()), 'epoch')}: training accuracy"
        f" {percent(last.train_accuracy.mean())}, validation accuracy"
        f" {percent(last.validation_accuracy.mean())} (means over seeds).",
        "One line for each seed and part.",
        [accuracy_charts.learning(curves)],
        [("By epoch", report_tables.learning(curves))],
    )


FIGURES: tuple[Callable[[View], Figure | None], ...] = (
    accuracy, close_up, recovery, size, deployment_figures.packed, ladder_of_sizes, latency,
    deployment_figures.engines, structured, formats, sensitivity, bits, error, learning,
)  # fmt: skip


def build(run: Run) -> list[Figure]:
    """Every figure that the run has numbers for."""
    seen = view(run)
    return [figure for draw in FIGURES if (figure := draw(seen)) is not None]


def save(figures: Sequence[Figure], directory: Path) -> None:
    """Draws each figure into an SVG of its own name."""
    for one in figures:
        picture = charts.picture(one.title, one.reading, one.panels)
        charts.save(picture, directory / paths.picture_name(one.name))
