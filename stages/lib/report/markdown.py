"""The report in Markdown: what GitHub shows, tables and pictures in the order of the course."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from stages.lib.analysis import candidates, statistics, tables
from stages.lib.analysis.findings import Finding
from stages.lib.analysis.tables import Table
from stages.lib.core.params import NO_WEIGHTS
from stages.lib.report import deployment_tables, report_tables

# Tables of more lines than this are folded.
LONG = 24
# Two networks of equal work may differ by this factor in time; more is the machine's load.
LATENCY_TOLERANCE = 1.25
# With fewer test images than this, one image is half a point or more.
FEW_IMAGES = 200


@dataclass(frozen=True)
class Deployed:
    """What there is of files to deploy, of all seeds: rows of packed networks and of what ONNX
    Runtime executes; engines (records.ENGINE_LATENCY); agreements (records.AGREEMENT); sizes
    (records.FILE_SIZE); card: what `package` recommends.
    """

    rows: pd.DataFrame
    engines: pd.DataFrame
    agreements: pd.DataFrame
    sizes: pd.DataFrame
    card: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """Everything the page tells of: tables of all seeds, and what was run on what.

    inventory: the network's parameters; network and weights: as the params name them; curves: the
    baseline's training, None where its weights were taken as they are; intervals: of the test
    accuracies of whole networks, as `tables.with_bounds` takes them, at `confidence`; None where
    the spread over seeds stands for them; settings: params.yaml by section; seconds: what each
    stage took, by seed (None: it has none).
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
    curves: pd.DataFrame | None = None
    intervals: pd.DataFrame | None = None
    confidence: float = 0.95
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, Mapping[int | None, float]] = field(default_factory=dict)
    deployed: Deployed | None = None

    def summary(self) -> pd.DataFrame:
        """Means over seeds, with the ends of the error bars."""
        return tables.with_bounds(tables.summary(self.rows), self.intervals)

    def everything(self) -> pd.DataFrame:
        """`summary`, and below it the files to deploy."""
        if self.deployed is None:
            return self.summary()
        rows = pd.concat([self.rows, self.deployed.rows], ignore_index=True)
        return tables.with_bounds(tables.summary(rows), self.intervals)

    def networks(self) -> pd.DataFrame:
        """Every network that can be had, with its costs: `candidates.table`."""
        engines = None if self.deployed is None else self.deployed.engines
        return candidates.table(self.everything(), self.latencies, engines)

    def error_bars(self) -> str:
        """What error bars show; empty where nothing is known of the spread."""
        over = "seeds and test images" if len(self.seeds) > 1 else "test images alone (one seed)"
        if self.intervals is not None:
            return f"{tables.percent(self.confidence)} confidence intervals over {over}"
        return "one standard deviation over seeds" if len(self.seeds) > 1 else ""


class Remark(NamedTuple):
    """What a reader must know before any number: in short, and what follows from it."""

    lead: str
    text: str


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


def control(latencies: pd.DataFrame) -> str:
    """What the masked network's time says of the machine: it does the dense one's work. Empty
    where it was not timed.
    """
    found = latencies[latencies.method == "global"].relative_to_baseline
    if found.empty:
        return ""
    return (
        "The masked network does exactly the work of the dense one, so it is the control: its time"
        f" was {found.min():.2f} to {found.max():.2f} times the dense network's."
    )


def busy(latencies: pd.DataFrame) -> list[Remark]:
    """A remark where equal work took unequal time."""
    found = latencies[latencies.method == "global"].relative_to_baseline
    if found.empty or (found.min() >= 1 / LATENCY_TOLERANCE and found.max() <= LATENCY_TOLERANCE):
        return []
    return [
        Remark(
            "The machine was busy: do not trust the ratios of latencies.",
            "Run `dvc repro -f latency_bench` when it is quiet, or raise `latency_bench.seconds`.",
        )
    ]


def remarks(run: Run, dense: pd.Series) -> list[Remark]:
    """A baseline that learned nothing, and few images. dense: the summary's line of it."""
    images, classes = run.meta["images"]["test"], len(run.meta["classes"])
    chance = 1 / classes
    found = []
    if statistics.at_chance(dense.test_accuracy, chance, images):
        found.append(
            Remark(
                "The baseline is no better than chance",
                f"({100 * chance:.1f} % for {classes} classes): what follows says nothing about"
                " pruning. Train it longer, or with another learning rate (`train_baseline`).",
            )
        )
    if images < FEW_IMAGES:
        found.append(
            Remark(
                f"Only {images} test images:",
                f"one of them is {100 / images:.1f} points, and differences of a few images are"
                " chance.",
            )
        )
    return found


def _bold(found: Sequence[Remark]) -> list[str]:
    return [f"**{remark.lead}** {remark.text}\n" for remark in found]


def protocol(run: Run) -> str:
    seeds = ", ".join(map(str, run.seeds))
    if len(run.seeds) == 1:
        return f"One seed ({seeds}): no spread over seeds is known"
    return f"Mean ± sample standard deviation over {len(run.seeds)} seeds ({seeds})"


def answers_note(run: Run) -> str:
    """How the networks that can be had were chosen, and what was not asked of them."""
    device, batch = candidates.latency_setting(run.latencies)
    bars = run.error_bars()
    return (
        "Chosen on validation accuracy (the mean over seeds loses no more than that against the"
        " dense network), shown with test accuracy"
        + (f" and {bars}" if bars else "")
        + f". Latency: batch {batch} on {device}, of the smaller networks and the files for ONNX"
        " Runtime, which were timed; a gain no larger than the difference between networks that do"
        " the same work is none."
        " MACs count nonzero weights: where a mask alone makes them fewer, only sparse"
        " kernels can save them. Half formats are no candidates: their validation accuracy is not"
        " measured."
    )


def _folded(summary: str, table: Table) -> str:
    """A table as it is, or to be opened by a click where it is long."""
    if len(table.rows) <= LONG:
        return table.markdown()
    return f"<details><summary>{summary}</summary>\n\n{table.markdown()}\n\n</details>"


def touched(inventory: pd.DataFrame) -> str:
    """What pruning single weights may touch, and what it leaves alone, in two sentences."""
    pruned = inventory[inventory.prunable == "yes"]
    others = inventory[inventory.prunable == "no"].groupby("kind", sort=False)["count"].sum()
    left = ", ".join(
        f"{kind} {tables.count(count)}"
        for kind, count in others.sort_values(ascending=False).items()
    )
    share = pruned["count"].sum() / inventory["count"].sum()
    return (
        f"Pruning single weights touches {len(pruned)} weight tensors, {100 * share:.1f} % of the"
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


def setting(timed: pd.DataFrame) -> str:
    """On what engines were timed, in a sentence. timed: records.ENGINE_LATENCY."""
    first = timed.iloc[0]
    isa = "" if pd.isna(first.isa) or not first.isa else f", {first.isa}"
    return f"On the CPU, {tables.times(int(first.threads), 'thread')}{isa}."


def no_gain(timed: pd.DataFrame) -> str:
    """What unstructured sparsity alone brings in speed, in a sentence; empty where the pruned and
    the dense network were not both timed as float32 files. timed: records.ENGINE_LATENCY.
    """
    lines = deployment_tables.engine_lines(timed)
    pairs = lines[lines.method == "onnx_finetune_float32"].merge(
        lines[lines.method == "onnx_float32"], on="batch_size", suffixes=("", "_dense")
    )
    if pairs.empty:
        return ""
    ratios = pairs.relative / pairs.relative_dense
    return (
        f"Zeros alone bring no speed: with {tables.percent(pairs.target_sparsity.max())} of its"
        " weights zero the network's float32 file takes"
        f" {ratios.min():.2f} to {ratios.max():.2f} times the dense one's time."
    )


def _recommendation(run: Run) -> list[str]:
    if run.deployed is None or not run.deployed.card:
        return []
    card = run.deployed.card
    return [
        "## The files to take\n",
        deployment_tables.recommendation(card).markdown() + "\n",
        deployment_tables.budgets(card) + "\n",
    ]


def _files_section(run: Run, picture: Callable[[str, str], list[str]]) -> list[str]:
    """Packed files and engines; nothing where there are none."""
    if run.deployed is None:
        return []
    everything, timed = run.everything(), run.deployed.engines
    ladder = deployment_tables.ladder(run.deployed.sizes)
    gain = no_gain(timed)
    return [
        "## Files to deploy: really smaller\n",
        *picture("packed", "Test accuracy of packed files by how many times smaller they are"),
        "Weights of few bits, most of them zero, entropy-coded: these are files on disk, headers"
        " included ([the format](../docs/packed-format.md)). Accuracy is that of the network that"
        " was read back from the file.\n",
        deployment_tables.packed(everything).markdown() + "\n",
        "The ladder of every kept network (nonzeros: as if their places were free; index + value:"
        " with the place of each; entropy bound: of the integers, or, in float32, of which weights"
        " are zero; zip: of the plain float32 file), means over seeds. Biases, norms and scales are"
        " float32 in the bound and coded in the file: it can be smaller than its bound.\n",
        _folded("every kept network in every form", ladder) + "\n",
        "## Files to deploy: really faster\n",
        *picture("engines", "Times faster than eager float32, by network and engine"),
        f"{setting(timed)} All networks of a seed are timed in turns. int8 is executed, weights and"
        " activations, and its accuracy is that of the execution.\n",
        deployment_tables.engines(timed, everything, run.deployed.agreements).markdown() + "\n",
        *([f"{gain}\n"] if gain else []),
    ]


def render(run: Run, findings: Sequence[Finding], figures: Mapping[str, str]) -> str:
    """The whole page. figures: paths relative to the page, by the names used below."""
    summary = run.summary()
    dense = summary[summary.method == "baseline"].iloc[0]
    networks = run.networks()
    layers = report_tables.quantized_layers(run.layers)

    def picture(name: str, text: str) -> list[str]:
        return [f"![{text}]({figures[name]})\n"] if name in figures else []

    def table(found: Table) -> str:
        return found.markdown() + "\n"

    parts = [
        "# How small, how fast, at what cost\n",
        f"A network of {tables.count(dense.parameters)} parameters"
        f" ({tables.size(dense.bytes_on_disk)} in float32, {tables.count(dense.macs)}"
        f" MACs an image), {tables.spread(dense.test_accuracy, dense.test_accuracy_std)} %"
        f" on the test images. {protocol(run)}; test accuracy is reported, never chosen"
        " on.\n",
        *_bold(remarks(run, dense)),
        "## What can be had\n",
        table(
            report_tables.answers(
                candidates.answers(networks, candidates.clock_noise(run.latencies)), networks
            )
        ),
        answers_note(run) + "\n",
        *_recommendation(run),
        *picture("size", "Test accuracy against bytes on disk"),
        *picture("latency", "Test accuracy against latency"),
        *picture("ladder", "The sizes of the network in every form"),
        *_files_section(run, picture),
        "## Every method at one sparsity\n",
        table(report_tables.headline(run.rows, summary, run.sparsity, run.max_drop)),
        "The sparsest point is chosen on validation: the largest sparsity measured at which mean"
        f" validation accuracy is within {report_tables.points(run.max_drop)} of the baseline's.\n",
        *picture("accuracy", "Test accuracy of every method against sparsity"),
        *picture("close_up", "The last ten points of accuracy against sparsity"),
        *picture("recovery", "Test accuracy before and after fine-tuning"),
        "## The course's findings\n",
        "Each is a hypothesis that stood in the code before the run, with the rule by which it is"
        " judged; in brackets are intervals of the paired difference over seeds and test images"
        " ([how](../docs/evaluation.md)). The course trained another network on another data set:"
        " compare directions, not digits.\n",
        _findings_list(findings) + "\n",
        "## Every method at every sparsity\n",
        "Sparsity is the share of the baseline's convolution and linear weights that are gone."
        " MACs count nonzero weights: zeros inside a dense tensor are work that *could* be"
        " saved, and the file of a masked network is as large as before. Structured pruning alone"
        " makes tensors smaller. Compression and reduction: the dense network's parameters and"
        " MACs over those that are left, as pruning papers give them.\n",
        table(report_tables.methods(summary)),
        "## Sensitivity: each layer alone\n",
        *picture("sensitivity", "Test accuracy by layer and sparsity"),
        "Best trade-off per layer (sparsest that loses at most"
        f" {report_tables.points(run.max_drop)} of validation accuracy, alone):\n",
        _folded("layer by layer", report_tables.best_tradeoffs(run.best)) + "\n",
        touched(run.inventory) + "\n",
        "## The baseline's training\n",
        *(
            picture("learning", "Accuracy by epoch")
            or [f"None: the weights are those of `{run.weights}` as they are.\n"]
        ),
        "## Structured pruning: does it get faster?\n",
        *picture("structured", "Latency against MACs"),
        "Medians over seeds; all networks of a seed are timed in turns, so that their ratios stand"
        " on the same machine load. Spread: interquartile range of blocks of calls.\n",
        table(report_tables.latencies(run.latencies)),
        *filter(None, [control(run.latencies)]),
        "",
        *_bold(busy(run.latencies)),
        *filter(None, [_refused_section(run.filters)]),
        "## Number formats\n",
        *picture("formats", "Latency by number format"),
        f"The baseline is that of seed {run.seeds[0]}; spread: interquartile range of blocks of"
        " calls, empty where one call filled the time box.\n",
        table(report_tables.formats(run.formats)),
        "## Linear quantization by hand\n",
        *picture("bits", "Accuracy by bit width"),
        "Test accuracy in percent with quantized weights (activations in float32); in brackets the"
        " measured error as a multiple of S²/12.\n",
        table(report_tables.bits(summary, run.layers)),
        *picture("error", "Quantization error against theory"),
        *([f"{layers[0]}:\n", _folded(*layers) + "\n"] if layers else []),
        "## What was run\n",
        _network_line(run),
        _data_line(run.meta),
        f"- Machine: {_hardware_line(run.hardware)}",
        "- Every number above is in `reports/runs/` (a folder per stage and seed, a row per"
        " network); the networks are in `artifacts/`.",
        "- Params: `params.yaml` at this commit; hashes of every input and output: `dvc.lock`.\n",
    ]
    return "\n".join(parts)
