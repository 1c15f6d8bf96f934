"""The course's findings, each beside what was measured here.

`agrees` is judged by means alone, by rules that stand in each function: "yes", "no", "partly" or
"not measured". It says nothing about significance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from stages.lib import tables

# Means closer than this are called equal: half a point of accuracy.
EQUAL = 0.005
NOTHING_SHARED = "the methods were measured at no common sparsity above 0"


@dataclass(frozen=True)
class Finding:
    """title; what the course reported; what was measured here, in sentences; whether both agree."""

    title: str
    course: str
    here: tuple[str, ...]
    agrees: str


@dataclass(frozen=True)
class Evidence:
    """The tables of a run: all rows (records.Row), quantized layers, formats; and the sparsity at
    which the methods are compared.
    """

    rows: pd.DataFrame
    layers: pd.DataFrame
    formats: pd.DataFrame
    sparsity: float


def _sparsities(rows: pd.DataFrame, *methods: str) -> list[float]:
    """Target sparsities above 0 at which all the methods were measured, ascending."""
    sets = [
        set(rows[(rows.method == method) & (rows.layer == "all")].target_sparsity)
        for method in methods
    ]
    return sorted(point for point in set.intersection(*sets) if point > 0)


def _reference(points: list[float], sparsity: float) -> float:
    return min(points, key=lambda point: (abs(point - sparsity), point))


def _mean_difference(rows: pd.DataFrame, one: str, other: str, sparsity: float) -> float:
    return (tables.at(rows, one, sparsity) - tables.at(rows, other, sparsity)).mean()


def _epochs(rows: pd.DataFrame, method: str) -> int:
    """The most extra epochs that a method spent; 0 where it was not run."""
    return int(rows[rows.method == method].extra_epochs.max() if method in set(rows.method) else 0)


def _versus(evidence: Evidence, one: str, other: str) -> tuple[str, int, int, int]:
    """A sentence on `one` against `other`; at how many sparsities it is better, equal, worse."""
    rows = evidence.rows
    points = _sparsities(rows, one, other)
    if not points:
        return NOTHING_SHARED, 0, 0, 0
    differences = [_mean_difference(rows, one, other, point) for point in points]
    better = sum(difference > EQUAL for difference in differences)
    worse = sum(difference < -EQUAL for difference in differences)
    point = _reference(points, evidence.sparsity)
    text = (
        f"{tables.METHODS[one]} {tables.accuracy(tables.at(rows, one, point))}, "
        f"{tables.METHODS[other]} {tables.accuracy(tables.at(rows, other, point))}"
        f" at {tables.percent(point)}; better at {better}, equal at {len(points) - better - worse},"
        f" worse at {worse} of {len(points)} sparsities"
    )
    return text, better, len(points) - better - worse, worse


def _agreement(better: int, equal: int, worse: int) -> str:
    if better + equal + worse == 0:
        return "not measured"
    if not better and not worse:
        return "no difference"
    if better and not worse:
        return "yes"
    if worse and not better:
        return "no"
    return "partly"


def global_over_layerwise(evidence: Evidence) -> Finding:
    """Agrees if global beats uniform at some sparsity and loses at none."""
    here, *counts = _versus(evidence, "global", "uniform")
    return Finding(
        "Global pruning preserves accuracy better than layer by layer",
        "better, 0–80 %",
        (here, "at equal total sparsity, as pruned, without retraining"),
        _agreement(*counts),
    )


def recovery(evidence: Evidence) -> Finding:
    """Agrees if fine-tuning gains accuracy wherever pruning had lost more than EQUAL, and costs
    none elsewhere."""
    rows = evidence.rows
    points = _sparsities(rows, "global", "finetune")
    dense = tables.at(rows, "baseline", 0.0)
    damaged = [p for p in points if (dense - tables.at(rows, "global", p)).mean() > EQUAL]
    gains = {p: _mean_difference(rows, "finetune", "global", p) for p in points}
    gained = [p for p in damaged if gains[p] > EQUAL]
    harmed = [p for p in points if gains[p] < -EQUAL]
    epochs = _epochs(rows, "finetune")
    parts = [
        f"{tables.percent(p)}: {tables.accuracy(tables.at(rows, 'global', p))}"
        f" → {tables.accuracy(tables.at(rows, 'finetune', p))}"
        for p in damaged
    ]
    told = "; ".join(parts) or "no sparsity had lost accuracy"
    here = f"{tables.times(epochs, 'epoch')}; {told}"
    if harmed:
        here += f"; fine-tuning cost accuracy at {', '.join(map(tables.percent, harmed))}"
    agrees = "yes" if len(gained) == len(damaged) and not harmed else "partly"
    return Finding(
        "Fine-tuning recovers accuracy for all pruned models",
        "significant recovery, 5 epochs",
        (here,),
        agrees if damaged else "not measured",
    )


def iterative_best(evidence: Evidence) -> Finding:
    """Agrees if, at every shared sparsity, no method's mean is above iterative's by more than
    EQUAL, and it is the best by more than that somewhere."""
    rows = evidence.rows
    others = ("uniform", "global", "finetune")
    points = _sparsities(rows, "iterative", *others)
    title, course = (
        "Iterative pruning is the most effective method",
        "best, 3 epochs a step to 80 %",
    )
    if not points:
        return Finding(title, course, (NOTHING_SHARED,), "not measured")
    leads = {
        p: min(_mean_difference(rows, "iterative", other, p) for other in others) for p in points
    }
    best = sum(lead > EQUAL for lead in leads.values())
    beaten = sum(lead < -EQUAL for lead in leads.values())
    iterative = rows[rows.method == "iterative"]
    last = max(points)
    spent = int(iterative[(iterative.target_sparsity - last).abs() < 1e-9].extra_epochs.max())
    here = (
        f"best at {best}, level with the best at {len(points) - best - beaten}, beaten at {beaten}"
        f" of {len(points)} sparsities; at {tables.percent(last)}"
        f" {tables.accuracy(tables.at(rows, 'iterative', last))}, one-shot + fine-tuning"
        f" {tables.accuracy(tables.at(rows, 'finetune', last))}. Not at equal cost: by then it has"
        f" trained {tables.times(spent, 'epoch')}, fine-tuning"
        f" {_epochs(rows, 'finetune')}"
    )
    return Finding(
        title,
        course,
        (here,),
        _agreement(best, len(points) - best - beaten, beaten),
    )


def unstructured_over_structured(evidence: Evidence) -> Finding:
    """Agrees if single weights beat whole filters somewhere and lose nowhere, in every scope,
    before and after fine-tuning alike."""
    present = set(evidence.rows.method)
    sentences, totals = [], [0, 0, 0]
    for scope in ("layer", "global"):
        for one, other in (
            ("global", f"structured_{scope}"),
            ("finetune", f"structured_{scope}_finetune"),
        ):
            if other in present and _sparsities(evidence.rows, one, other):
                text, *counts = _versus(evidence, one, other)
                sentences.append(text)
                totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return Finding(
        "Unstructured pruning preserves accuracy much better than structured",
        "much better",
        tuple(sentences) or (NOTHING_SHARED,),
        _agreement(*totals),
    )


def _format(evidence: Evidence, network: str, device: str, batch: int = 1) -> pd.DataFrame:
    table = evidence.formats
    chosen = table[(table.network == network) & (table.device == device)]
    smallest = chosen.batch_size.min()
    return chosen[chosen.batch_size == (batch if batch in set(chosen.batch_size) else smallest)]


def _latencies(table: pd.DataFrame) -> str:
    parts = []
    for line in table.itertuples():
        measured = f"{tables.milliseconds(line.latency_ms)} ms"
        parts.append(f"{line.dtype} {measured if pd.notna(line.latency_ms) else line.note}")
    return ", ".join(parts)


def half_size(evidence: Evidence) -> Finding:
    """Agrees if in every half format the weights take within 5 % of half of float32's bytes, for
    every network; a file's header, which does not shrink, is left out."""
    parts, ratios = [], []
    for network, table in evidence.formats.groupby("network", sort=False):
        sizes = table.groupby("dtype", sort=False).bytes_on_disk.first()
        if "float32" not in sizes or len(sizes) < 2:
            continue
        weights = table.groupby("dtype", sort=False).tensor_bytes.first()
        ratios += [bytes_ / weights["float32"] for bytes_ in weights.drop("float32")]
        listed = ", ".join(f"{name} {tables.size(value)}" for name, value in sizes.items())
        parts.append(f"{network}: {listed}")
    agrees = "yes" if all(abs(ratio - 0.5) < 0.025 for ratio in ratios) else "no"
    return Finding(
        "float16 and bfloat16 halve the file",
        "ConvNet 1.31 → 0.65 MB, ResNet-152 229.6 → 114.8 MB",
        tuple(parts) or ("float32 and a half format were not both measured",),
        agrees if ratios else "not measured",
    )


def half_accuracy(evidence: Evidence) -> Finding:
    """Agrees if the baseline's accuracy in every half format is within EQUAL of float32's, where
    the time was too short for all test images at least by their agreement.
    """
    table = evidence.formats
    known = table[table.accuracy.notna() & (table.batch_size == table.batch_size.min())]
    parts, drops = [], []
    for device, group in known.groupby("device", sort=False):
        lines = {line.dtype: line for line in group.itertuples()}
        listed = []
        for name, line in lines.items():
            part = pd.notna(line.agreement)
            of = f" of {line.agreement_images:.0f} images" if part else ""
            listed.append(f"{name} {100 * line.accuracy:.1f} %{of}")
            if "float32" in lines and name != "float32":
                # On fewer images than float32's, all that is known of the drop is what it is below.
                whole = lines["float32"].accuracy - line.accuracy
                drops.append(1 - line.agreement if part else whole)
        parts.append(f"{device}: {', '.join(listed)}")
    agrees = "yes" if all(drop <= EQUAL for drop in drops) else "no"
    return Finding(
        "Accuracy is the same in all formats",
        "all about 0.83",
        tuple(parts) or ("not measured",),
        agrees if drops else "not measured",
    )


def float32_on_cpu(evidence: Evidence) -> Finding:
    """Agrees if float32 has the lowest median latency of the formats, batch 1, on the CPU."""
    table = _format(evidence, "baseline", "cpu")
    known = table[table.latency_ms.notna()].set_index("dtype").latency_ms
    if "float32" not in known or len(known) < 2:
        agrees = "not measured"
    elif known.idxmin() == "float32":
        agrees = "yes"
    else:
        agrees = "no" if known["float32"] == known.max() else "partly"
    return Finding(
        "On a CPU float32 is the fastest format",
        "float32 2.04, float16 37.69, bfloat16 29.17 ms",
        ((_latencies(table) or "not measured") + " (baseline network, smallest batch)",),
        agrees,
    )


def _on_gpu(evidence: Evidence, network: str, title: str, course: str, faster: bool) -> Finding:
    table = _format(evidence, network, "cuda")
    known = table[table.latency_ms.notna()].set_index("dtype").latency_ms
    if "float32" not in known or len(known) < 2:
        notes = [note for note in table.note if isinstance(note, str) and note]
        reason = notes[0] if notes else "not among dtype_bench's settings"
        return Finding(title, course, (reason,), "not measured")
    halves = known.drop("float32")
    holds = halves < known["float32"] if faster else halves >= known["float32"]
    agrees = "yes" if holds.all() else "partly" if holds.any() else "no"
    return Finding(title, course, (_latencies(table),), agrees)


def small_network_on_gpu(evidence: Evidence) -> Finding:
    """Agrees if no half format is faster than float32 for the baseline on a GPU."""
    return _on_gpu(
        evidence,
        "baseline",
        "On a GPU half formats bring the small network no speed",
        "0.53 → about 0.61 ms",
        faster=False,
    )


def large_network_on_gpu(evidence: Evidence) -> Finding:
    """Agrees if both half formats are faster than float32 for ResNet-152 on a GPU."""
    return _on_gpu(
        evidence,
        "resnet152",
        "On a GPU half formats make ResNet-152 faster",
        "7.83 → about 6.68 ms",
        faster=True,
    )


def quantization_error(evidence: Evidence) -> Finding:
    """Agrees if, for per-tensor quantization, the median layer's error at 8 and at 16 bits is
    within 10 % of S²/12: the course's two values have the ratio 2^16 that this law implies."""
    table = evidence.layers
    parts, ratios = [], []
    per_tensor = table[table.granularity == "tensor"]
    for bits in (8, 16):
        chosen = per_tensor[per_tensor.bits == bits]
        if len(chosen):
            ratios.append(chosen.ratio.median())
            parts.append(
                f"{bits} bit {chosen.mse.min():.2e} to {chosen.mse.max():.2e} over the layers,"
                f" median {ratios[-1]:.3f} × S²/12"
            )
    agrees = "yes" if all(abs(ratio - 1) < 0.1 for ratio in ratios) else "no"
    return Finding(
        "Linear quantization of a layer: mean squared error",
        "1.02e-5 at 8 bit, 1.57e-10 at 16 bit",
        tuple(parts) or ("neither 8 nor 16 bits per tensor were measured",),
        agrees if ratios else "not measured",
    )


FINDINGS: tuple[Callable[[Evidence], Finding], ...] = (
    global_over_layerwise,
    recovery,
    iterative_best,
    unstructured_over_structured,
    half_size,
    half_accuracy,
    float32_on_cpu,
    small_network_on_gpu,
    large_network_on_gpu,
    quantization_error,
)


def judge(evidence: Evidence) -> list[Finding]:
    """Every finding of the course, in its order."""
    return [find(evidence) for find in FINDINGS]
