"""The report in Markdown: what GitHub shows, tables and pictures in the order of the course."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.lib import statistics, tables
from stages.lib.findings import Finding
from stages.lib.params import NO_WEIGHTS

# Tables of more lines than this are folded.
LONG = 24
# Two networks of equal work may differ by this factor in time; more is the machine's load.
LATENCY_TOLERANCE = 1.25
# With fewer test images than this, one image is half a point or more.
FEW_IMAGES = 200


@dataclass(frozen=True)
class Run:
    """Everything the page tells of: tables of all seeds, and what was run on what.

    inventory: the network's parameters; network and weights: as the params name them.
    """

    seeds: Sequence[int]
    rows: pd.DataFrame
    best: pd.DataFrame
    layers: pd.DataFrame
    formats: pd.DataFrame
    latencies: pd.DataFrame
    filters: pd.DataFrame
    inventory: pd.DataFrame
    network: str
    weights: str
    meta: Mapping[str, Any]
    hardware: Mapping[str, Any]
    sparsity: float
    max_drop: float


def _points(share: float) -> str:
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def _methods_table(summary: pd.DataFrame) -> str:
    dense = summary[summary.method == "baseline"].iloc[0]
    rows = []
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
                    tables.count(line.nonzero_parameters),
                    tables.count(line.multiply_adds),
                    tables.size(line.bytes_on_disk),
                    tables.count(line.extra_epochs),
                )
            )
    headers = (
        "method", "sparsity", "test accuracy, %", "Δ, points", "nonzero parameters",
        "multiply-adds", "file", "extra epochs",
    )  # fmt: skip
    return tables.markdown(headers, rows)


def _headline_table(run: Run, summary: pd.DataFrame) -> str:
    dense = summary[summary.method == "baseline"].iloc[0]
    headers = (
        "method", f"test accuracy at {tables.percent(run.sparsity)}, %", "Δ, points",
        f"sparsest within {_points(run.max_drop)} of the baseline", "extra epochs there",
    )  # fmt: skip
    rows = []
    for method, name in tables.METHODS.items():
        sparsity = 0.0 if method == "baseline" else run.sparsity
        values = tables.at(run.rows, method, sparsity)
        if method not in set(run.rows.method) or method == "best_per_layer":
            continue
        kept = tables.sparsest(run.rows, method, run.max_drop)
        line = summary[(summary.method == method) & (summary.target_sparsity == kept)]
        epochs = tables.count(line.extra_epochs.iloc[0]) if kept else "0"
        reached = tables.percent(kept) if kept else "" if method == "baseline" else "none"
        drop = f"{100 * (values.mean() - dense.test_accuracy):+.1f}" if len(values) else ""
        spread = tables.spread(values.mean(), values.std()) if len(values) else "not measured"
        rows.append((name, spread, drop, reached, epochs))
    return tables.markdown(headers, rows)


def _findings_list(findings: Sequence[Finding]) -> str:
    lines = []
    for number, found in enumerate(findings, start=1):
        lines += [
            f"{number}. {found.title}: **{found.verdict}**: {found.why}",
            f"   - the course: {found.course or 'did not ask; a hypothesis of ours'}",
            f"   - rule: {found.rule}",
            *(f"   - here: {sentence}" for sentence in found.here),
        ]
    return "\n".join(lines)


def _best_table(best: pd.DataFrame) -> str:
    chosen = best.pivot(index="layer", columns="seed", values="sparsity")
    chosen = chosen.loc[list(dict.fromkeys(best.layer))]
    rows = [
        (layer, *(tables.percent(value) for value in line))
        for layer, line in zip(chosen.index, chosen.to_numpy(), strict=True)
    ]
    return tables.markdown(("layer", *(f"seed {seed}" for seed in chosen.columns)), rows)


def _formats_table(formats: pd.DataFrame) -> str:
    rows = []
    for line in formats.itertuples():
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
    return tables.markdown(headers, rows, left=3)


def _latency_table(latencies: pd.DataFrame) -> str:
    grouped = latencies.groupby(
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
    return tables.markdown(headers, rows)


def _control_line(latencies: pd.DataFrame) -> str:
    """What the masked network's time says of the machine: it does the dense one's work."""
    control = latencies[latencies.method == "global"].relative_to_baseline
    if control.empty:
        return ""
    least, most = control.min(), control.max()
    line = (
        "The masked network does exactly the work of the dense one, so it is the control: its time"
        f" was {least:.2f} to {most:.2f} times the dense network's.\n"
    )
    if least >= 1 / LATENCY_TOLERANCE and most <= LATENCY_TOLERANCE:
        return line
    return line + (
        "\n**The machine was busy: do not trust these ratios.** Run `dvc repro -f latency_bench`"
        " when it is quiet, or raise `latency_bench.seconds`.\n"
    )


def _warnings(run: Run, dense: pd.Series) -> list[str]:
    """What a reader must know before any number: a baseline that learned nothing, few images."""
    images, classes = run.meta["images"]["test"], len(run.meta["classes"])
    chance = 1 / classes
    found = []
    if statistics.at_chance(dense.test_accuracy, chance, images):
        found.append(
            f"**The baseline is no better than chance** ({100 * chance:.1f} % for {classes}"
            " classes): what follows says nothing about pruning. Train it longer, or with another"
            " learning rate (`train_baseline`).\n"
        )
    if images < FEW_IMAGES:
        found.append(
            f"**Only {images} test images**: one of them is {100 / images:.1f} points, and"
            " differences of a few images are chance.\n"
        )
    return found


def _protocol(run: Run) -> str:
    seeds = ", ".join(map(str, run.seeds))
    if len(run.seeds) == 1:
        return f"One seed ({seeds}): no spread over seeds is known"
    return f"Mean ± sample standard deviation over {len(run.seeds)} seeds ({seeds})"


def _folded(summary: str, table: str, lines: int) -> str:
    """A table as it is, or to be opened by a click where it is long."""
    if lines <= LONG:
        return table
    return f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>"


def _touched(inventory: pd.DataFrame) -> str:
    """What pruning single weights may touch, and what it leaves alone, in two sentences."""
    touched = inventory[inventory.prunable == "yes"]
    others = inventory[inventory.prunable == "no"].groupby("kind", sort=False)["count"].sum()
    left = ", ".join(
        f"{kind} {tables.count(count)}"
        for kind, count in others.sort_values(ascending=False).items()
    )
    share = touched["count"].sum() / inventory["count"].sum()
    return (
        f"Pruning single weights touches {len(touched)} weight tensors, {100 * share:.1f} % of the"
        f" parameters. The rest (biases, norms, embeddings) stays whole, by kind of module: {left}."
    )


def _refused_section(filters: pd.DataFrame) -> str:
    """Which layers keep all their filters, and why; empty where it is the classifier alone."""
    layers = filters.drop_duplicates(["layer", "reason"])
    refused = layers[layers.prunable == "no"]
    if len(refused) <= 1:
        return ""
    rows = [
        (reason, str(len(lines)), _names(list(lines.layer)))
        for reason, lines in refused.groupby("reason", sort=False)
    ]
    table = tables.markdown(("why", "layers", "which"), rows, left=1)
    whole = layers.layer.nunique()
    return (
        f"{refused.layer.nunique()} of the network's {whole} layers keep all their filters, at"
        f" every sparsity:\n\n{table}\n"
    )


def _names(layers: Sequence[str]) -> str:
    """The first few names, and how many more."""
    shown = ", ".join(layers[:3])
    return shown if len(layers) <= 3 else f"{shown} and {len(layers) - 3} more"


def _bits_table(summary: pd.DataFrame, layers: pd.DataFrame) -> str:
    quantized = summary[summary.weight_bits < 32]
    errors = layers.groupby(["scheme", "granularity", "bits"])[["mse", "theory"]].mean()
    methods = list(dict.fromkeys(quantized.method))
    rows = []
    for bits in sorted(set(quantized.weight_bits)):
        lines = quantized[quantized.weight_bits == bits].set_index("method")
        cells = []
        for method in methods:
            line = lines.loc[method]
            error = errors.loc[(*method.split("_"), bits)]
            cells.append(
                f"{tables.spread(line.test_accuracy, line.test_accuracy_std)}"
                f" ({error.mse / error.theory:.2f})"
            )
        rows.append((str(bits), tables.size(lines.bytes_on_disk.iloc[0]), *cells))
    names = (method.replace("_", ", per ") for method in methods)
    return tables.markdown(("bits", "file (integers in 8 or 16 bits)", *names), rows, left=0)


def _layers_section(layers: pd.DataFrame) -> str:
    """S, Z and the error of each layer at 8 and 16 bits, for the first scheme and seed."""
    scheme, seed = layers.scheme.iloc[0], layers.seed.iloc[0]
    chosen = layers[
        (layers.seed == seed)
        & (layers.scheme == scheme)
        & (layers.granularity == "tensor")
        & layers.bits.isin([8, 16])
    ]
    if chosen.empty:
        return ""
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
    table = tables.markdown(("layer", "bits", "S", "Z", "MSE", "S²/12", "ratio"), rows)
    title = f"Layer by layer ({scheme}, per tensor, seed {seed})"
    return f"{title}:\n\n{_folded(title, table, len(rows))}\n"


def _hardware_line(hardware: Mapping[str, Any]) -> str:
    isa = ", ".join(name for name in hardware["isa"] if not name.startswith("sse")) or "none known"
    gpus = ", ".join(hardware["gpus"]) or "none"
    return (
        f"{hardware['cpu']} ({hardware['machine']}, {hardware['cores']} cores; instruction sets"
        f" {isa}); GPU: {gpus}; {hardware['system']}, Python {hardware['python']}, torch"
        f" {hardware['torch']}, torchvision {hardware['torchvision']}."
    )


def _network_line(run: Run) -> str:
    start = "" if run.weights == NO_WEIGHTS else f", from the weights `{run.weights}`"
    return f"- Network: `{run.network}`{start}."


def _data_line(meta: Mapping[str, Any]) -> str:
    counts, shape = meta["images"], "×".join(map(str, meta["image_shape"]))
    unreadable = meta["unreadable_count"]
    left_out = f" {unreadable} unreadable files left out;" if unreadable else ""
    return (
        f"- Data: `{meta['source']}`, {len(meta['classes'])} classes, images {shape};"
        f" {counts['train']} train, {counts['validation']} validation, {counts['test']} test;"
        f"{left_out} SHA-256 `{meta['checksum']}`."
    )


def render(run: Run, findings: Sequence[Finding], figures: Mapping[str, str]) -> str:
    """The whole page. figures: paths relative to the page, by the names used below."""
    summary = tables.summary(run.rows)
    dense = summary[summary.method == "baseline"].iloc[0]

    def picture(name: str, text: str) -> str:
        return f"![{text}]({figures[name]})\n"

    parts = [
        "# How small, how fast, at what cost\n",
        f"A network of {tables.count(dense.parameters)} parameters"
        f" ({tables.size(dense.bytes_on_disk)} in float32, {tables.count(dense.multiply_adds)}"
        f" multiply-adds an image), {tables.spread(dense.test_accuracy, dense.test_accuracy_std)} %"
        f" on the test images. {_protocol(run)}; test accuracy is reported, never chosen"
        " on.\n",
        *_warnings(run, dense),
        _headline_table(run, summary) + "\n",
        "The sparsest point is chosen on validation: the largest sparsity measured at which mean"
        f" validation accuracy is within {_points(run.max_drop)} of the baseline's.\n",
        picture("accuracy", "Test accuracy of every method against sparsity"),
        picture("close_up", "The last ten points of accuracy against sparsity"),
        "## The course's findings\n",
        "Each is a hypothesis that stood in the code before the run, with the rule by which it is"
        " judged; in brackets are intervals of the paired difference over seeds and test images"
        " ([how](../docs/evaluation.md)). The course trained another network on another data set:"
        " compare directions, not digits.\n",
        _findings_list(findings) + "\n",
        "## Every method at every sparsity\n",
        "Sparsity is the share of the baseline's convolution and linear weights that are gone."
        " Multiply-adds count nonzero weights: zeros inside a dense tensor are work that *could* be"
        " saved, and the file of a masked network is as large as before. Structured pruning alone"
        " makes tensors smaller.\n",
        _methods_table(summary) + "\n",
        "## Sensitivity: each layer alone\n",
        picture("sensitivity", "Test accuracy by layer and sparsity"),
        f"Best trade-off per layer (sparsest that loses at most {_points(run.max_drop)} of"
        " validation accuracy, alone):\n",
        _folded("layer by layer", _best_table(run.best), run.best.layer.nunique()) + "\n",
        _touched(run.inventory) + "\n",
        "## The baseline's training\n",
        picture("learning", "Accuracy by epoch")
        if "learning" in figures
        else f"None: the weights are those of `{run.weights}` as they are.\n",
        "## Structured pruning: does it get faster?\n",
        picture("structured", "Latency against multiply-adds"),
        "Medians over seeds; all networks of a seed are timed in turns, so that their ratios stand"
        " on the same machine load. Spread: interquartile range of blocks of calls.\n",
        _latency_table(run.latencies) + "\n",
        *filter(None, [_control_line(run.latencies)]),
        *filter(None, [_refused_section(run.filters)]),
        "## Number formats\n",
        picture("formats", "Latency by number format"),
        f"The baseline is that of seed {run.seeds[0]}; spread: interquartile range of blocks of"
        " calls, empty where one call filled the time box.\n",
        _formats_table(run.formats) + "\n",
        "## Linear quantization by hand\n",
        picture("bits", "Accuracy by bit width"),
        "Test accuracy in percent with quantized weights (activations in float32); in brackets the"
        " measured error as a multiple of S²/12.\n",
        _bits_table(summary, run.layers) + "\n",
        picture("error", "Quantization error against theory"),
        _layers_section(run.layers),
        "## What was run\n",
        _network_line(run),
        _data_line(run.meta),
        f"- Machine: {_hardware_line(run.hardware)}",
        "- Every number above is in `reports/runs/` (a folder per stage and seed, a row per"
        " network); the networks are in `artifacts/`.",
        "- Params: `params.yaml` at this commit; hashes of every input and output: `dvc.lock`.\n",
    ]
    return "\n".join(parts)
