"""The report's tables, for every page that shows them."""

import math
from collections.abc import Sequence

import pandas as pd

from stages.lib.analysis import candidates, ladder, tables
from stages.lib.analysis.candidates import Answer
from stages.lib.analysis.tables import Table

COST_TITLES = {
    "bytes_on_disk": "smallest file",
    "macs": "fewest MACs",
    "relative_latency": "lowest latency",
}


def points(share: float) -> str:
    """A difference of accuracy: 0.01 → 1 point."""
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def cost_text(network: pd.Series, cost: str) -> str:
    """What a network costs, in the cost's own unit."""
    if cost == "bytes_on_disk":
        return tables.size(network.bytes_on_disk)
    if cost == "macs":
        return tables.count(network.macs)
    return f"{tables.milliseconds(network.latency_ms)} ms"


def saving_text(network: pd.Series, dense: pd.Series, cost: str) -> str:
    """How many times less than the dense network: "3.7 × less"; empty for the dense network."""
    if network.method == "baseline":
        return ""
    less = {"bytes_on_disk": "smaller", "macs": "fewer", "relative_latency": "faster"}
    return f"{dense[cost] / network[cost]:.3g} × {less[cost]}"


def answers(found: Sequence[Answer], networks: pd.DataFrame) -> Table:
    """What can be had at each loss: the cheapest of the networks of `candidates.table`."""
    dense = networks[networks.method == "baseline"].iloc[0]
    rows = []
    for answer in found:
        cells = []
        for cost, choice in answer.choices.items():
            if choice is None:
                cells.append("not measured")
                continue
            saving = saving_text(choice, dense, cost)
            cells.append(
                f"**{cost_text(choice, cost)}**{f' ({saving})' if saving else ''}:"
                f" {choice.network},"
                f" {tables.estimate(choice.test_accuracy, choice.low, choice.high)}"
            )
        rows.append((points(answer.loss), *cells))
    return Table(
        ("validation accuracy given up, at most", *COST_TITLES.values()),
        rows,
        left=len(candidates.COSTS) + 1,
    )


def methods(summary: pd.DataFrame) -> Table:
    """Every whole float32 network, the dense one first: accuracy, work and size."""
    dense = summary[summary.method == "baseline"].iloc[0]
    rows, top5 = [], not math.isnan(dense.test_top5)
    whole = summary[(summary.layer == "all") & (summary.weight_bits == 32)]
    for method, name in tables.METHODS.items():
        lines = whole[whole.method == method].sort_values("target_sparsity")
        for line in lines.itertuples():
            rows.append(
                (
                    name,
                    tables.percent(round(line.sparsity, 4)),
                    tables.spread(line.test_accuracy, line.test_accuracy_std),
                    f"{100 * (line.test_accuracy - dense.test_accuracy):+.1f}",
                    *([f"{100 * line.test_top5:.1f}"] if top5 else []),
                    tables.count(line.nonzero_parameters),
                    tables.factor(line.compression),
                    tables.count(line.macs),
                    tables.factor(line.reduction),
                    tables.size(line.bytes_on_disk),
                    tables.count(line.extra_epochs),
                )
            )
    headers = (
        "method", "sparsity", "test accuracy, %", "Δ, points", *(["top-5, %"] if top5 else []),
        "nonzero parameters", "compression", "MACs", "reduction", "file", "extra epochs",
    )  # fmt: skip
    return Table(headers, rows)


def headline(rows: pd.DataFrame, summary: pd.DataFrame, sparsity: float, max_drop: float) -> Table:
    """Each method at one sparsity, and how far it goes within a loss on validation."""
    dense = summary[summary.method == "baseline"].iloc[0]
    headers = (
        "method", f"test accuracy at {tables.percent(sparsity)}, %", "Δ, points", "extra epochs",
        f"sparsest within {points(max_drop)} of the baseline",
    )  # fmt: skip
    lines = []
    for method, name in tables.METHODS.items():
        dense_shape = method.startswith("baseline")
        here = 0.0 if dense_shape else sparsity
        values = tables.at(rows, method, here)
        if method not in set(rows.method) or method == "best_per_layer":
            continue
        kept = tables.sparsest(rows, method, max_drop)
        line = summary[(summary.method == method) & (summary.target_sparsity == here)]
        epochs = tables.count(line.extra_epochs.iloc[0]) if len(line) else ""
        reached = tables.percent(kept) if kept else "" if dense_shape else "none"
        drop = f"{100 * (values.mean() - dense.test_accuracy):+.1f}" if len(values) else ""
        spread = tables.spread(values.mean(), values.std()) if len(values) else "not measured"
        lines.append((name, spread, drop, epochs, reached))
    return Table(headers, lines)


def best_tradeoffs(best: pd.DataFrame) -> Table:
    """The sparsest point of each layer that loses little, alone, by seed."""
    chosen = best.pivot(index="layer", columns="seed", values="sparsity")
    chosen = chosen.loc[list(dict.fromkeys(best.layer))]
    rows = [
        (layer, *(tables.percent(value) for value in line))
        for layer, line in zip(chosen.index, chosen.to_numpy(), strict=True)
    ]
    return Table(("layer", *(f"seed {seed}" for seed in chosen.columns)), rows)


def formats(bench: pd.DataFrame) -> Table:
    """The bench of number formats, line by line."""
    rows = []
    for line in bench.itertuples():
        quality = ""
        if not math.isnan(line.accuracy):
            quality = f"accuracy {100 * line.accuracy:.1f} %"
            if not math.isnan(line.agreement):
                quality += f" of {line.agreement_images:.0f}"
        elif not math.isnan(line.agreement):
            quality = f"agreement {100 * line.agreement:.0f} % of {line.agreement_images:.0f}"
        peak = "" if math.isnan(line.peak_memory_bytes) else tables.size(line.peak_memory_bytes)
        rows.append(
            (
                f"{line.network} {line.image_shape}",
                line.device,
                line.dtype,
                str(line.batch_size),
                tables.size(line.bytes_on_disk),
                quality,
                tables.milliseconds(line.latency_ms),
                tables.milliseconds(line.latency_iqr_ms),
                str(line.runs),
                peak,
                "" if pd.isna(line.note) else line.note,
            )
        )
    headers = (
        "network", "device", "format", "batch", "file", "quality", "latency, ms", "spread, ms",
        "runs", "peak memory", "note",
    )  # fmt: skip
    return Table(headers, rows, left=3)


def latencies(timed: pd.DataFrame) -> Table:
    """The networks that were timed in turns: medians over seeds."""
    grouped = timed.groupby(
        ["method", "target_sparsity", "device", "batch_size"],
        sort=False,
        as_index=False,
    ).agg(
        latency_ms=("latency_ms", "median"),
        latency_iqr_ms=("latency_iqr_ms", "median"),
        relative_to_baseline=("relative_to_baseline", "median"),
        runs=("runs", "sum"),
    )
    rows = [
        (
            tables.METHODS[line.method],
            tables.percent(line.target_sparsity),
            line.device,
            str(line.batch_size),
            tables.milliseconds(line.latency_ms),
            tables.milliseconds(line.latency_iqr_ms),
            f"{line.relative_to_baseline:.2f}",
            tables.count(line.runs),
        )
        for line in grouped.sort_values("batch_size", kind="stable").itertuples()
    ]
    headers = (
        "network", "sparsity", "device", "batch", "latency, ms", "spread, ms", "× dense", "runs",
    )  # fmt: skip
    return Table(headers, rows)


def bits(summary: pd.DataFrame, layers: pd.DataFrame) -> Table:
    """Accuracy and error by bit width."""
    quantized = summary[summary.weight_bits < 32]
    errors = layers.groupby(["scheme", "granularity", "bits"])[["mse", "theory"]].mean()
    methods = list(dict.fromkeys(quantized.method))
    rows = []
    for width in sorted(set(quantized.weight_bits)):
        lines = quantized[quantized.weight_bits == width].set_index("method")
        cells = []
        for method in methods:
            line = lines.loc[method]
            error = errors.loc[(*method.split("_"), width)]
            cells.append(
                f"{tables.spread(line.test_accuracy, line.test_accuracy_std)}"
                f" ({error.mse / error.theory:.2f})"
            )
        rows.append((str(width), tables.size(lines.bytes_on_disk.iloc[0]), *cells))
    names = (method.replace("_", ", per ") for method in methods)
    return Table(("bits", "file (integers in 8 or 16 bits)", *names), rows, left=0)


def quantized_layers(layers: pd.DataFrame) -> tuple[str, Table] | None:
    """S, Z and the error of each layer at 8 and 16 bits, for the first scheme and seed: a title
    and the table; None where nothing was quantized per tensor to these widths.
    """
    scheme, seed = layers.scheme.iloc[0], layers.seed.iloc[0]
    chosen = layers[
        (layers.seed == seed)
        & (layers.scheme == scheme)
        & (layers.granularity == "tensor")
        & layers.bits.isin([8, 16])
    ]
    if chosen.empty:
        return None
    rows = [
        (
            line.layer,
            str(line.bits),
            f"{line.scale_most:.4g}",
            str(line.zero_point_most),
            f"{line.mse:.3g}",
            f"{line.theory:.3g}",
            f"{line.ratio:.3f}",
        )
        for line in chosen.itertuples()
    ]
    headers = ("layer", "bits", "S", "Z", "MSE", "S²/12", "ratio")
    return f"Layer by layer ({scheme}, per tensor, seed {seed})", Table(headers, rows)


def recoveries(found: pd.DataFrame) -> Table:
    """found: `accuracy_charts.recoveries`."""
    rows = [
        (
            tables.METHODS[line.method],
            tables.percent(line.removed),
            f"{100 * line.before:.1f}",
            f"{100 * line.after:.1f}",
            f"{100 * line.gain:+.1f}",
            tables.count(line.epochs),
        )
        for line in found.itertuples()
    ]
    headers = ("pruned by", "sparsity", "before, %", "after, %", "gain, points", "epochs")
    return Table(headers, rows)


def networks(found: pd.DataFrame, cost: str, front: pd.Index) -> Table:
    """Networks by a cost, cheapest first; `front`: which of them no other beats in both."""
    dense = found[found.method == "baseline"].iloc[0]
    known = found[found[cost].notna()].sort_values([cost, "test_accuracy"], kind="stable")
    rows = [
        (
            line.network,
            cost_text(line, cost),
            f"{dense[cost] / line[cost]:.2f}",
            f"{100 * line.test_accuracy:.1f}",
            f"{100 * line.low:.1f}–{100 * line.high:.1f}" if line.low < line.high else "",
            "yes" if index in front else "",
        )
        for index, line in known.iterrows()
    ]
    name = {"bytes_on_disk": "file", "relative_latency": "latency"}[cost]
    headers = (
        "network",
        name,
        "× less than dense",
        "test accuracy, %",
        "error bar",
        "on the front",
    )
    return Table(headers, rows)


def ladder_of_sizes(rungs: pd.DataFrame) -> Table:
    """rungs: `ladder.rungs`."""
    rows = [
        (
            line.name,
            tables.size(line.bytes),
            f"{rungs.bytes.max() / line.bytes:.1f}",
            "measured" if line.kind == ladder.FILE else "calculated",
            line.note,
        )
        for line in rungs.itertuples(index=False)
    ]
    return Table(("form", "size", "× smaller", "how it is known", "note"), rows)


def sensitivity(summary: pd.DataFrame) -> Table:
    """Test accuracy in percent with one layer alone pruned, by layer and sparsity."""
    alone = summary[summary.method == "layer_alone"]
    wide = alone.pivot(index="layer", columns="target_sparsity", values="test_accuracy")
    wide = wide.loc[list(dict.fromkeys(alone.layer))]
    rows = [
        (layer, *("" if pd.isna(value) else f"{100 * value:.1f}" for value in line))
        for layer, line in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    return Table(("layer", *map(tables.percent, wide.columns)), rows)


def learning(curves: pd.DataFrame) -> Table:
    """Accuracy by epoch: means over seeds."""
    columns = ["train_accuracy", "validation_accuracy"]
    mean = curves.groupby("epoch")[columns].mean()
    rows = [
        (str(epoch), f"{100 * train:.1f}", f"{100 * validation:.1f}")
        for epoch, train, validation in mean.itertuples()
    ]
    return Table(("epoch", "training accuracy, %", "validation accuracy, %"), rows, left=0)


def errors(mean: pd.DataFrame) -> Table:
    """mean: `quantization_charts.mean_errors`."""
    rows = [
        (
            line.method.replace("_", ", per "),
            str(line.bits),
            f"{line.mse:.3g}",
            f"{line.theory:.3g}",
            f"{line.mse / line.theory:.3f}",
        )
        for line in mean.itertuples()
    ]
    return Table(("setting", "bits", "measured", "S²/12", "ratio"), rows)
