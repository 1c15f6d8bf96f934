"""The claims about number formats, stated before anything is measured: bytes, accuracy and time of
half precision.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stages.lib.analysis import evidence as fair
from stages.lib.analysis import statistics, tables
from stages.lib.analysis.evidence import Arms, Evidence
from stages.lib.analysis.statistics import Share
from stages.lib.analysis.verdicts import (
    CONTRADICTED,
    NOT_MEASURED,
    REPRODUCED,
    UNDECIDED,
    Finding,
    Hypothesis,
    weigh,
)
from stages.lib.core import hardware

FLOAT32 = "float32"
# The step counters of batch norms are 64-bit integers in every format.
SIZE_TOLERANCE = 0.05
# Tables have six digits: a loss of exactly the tolerance must not count as larger.
ROUNDING = 1e-6

HALF_SIZE = Hypothesis(
    "half_size",
    "float16 and bfloat16 halve the file",
    "ConvNet 1.31 → 0.65 MB, ResNet-152 229.6 → 114.8 MB",
    "Bytes of all tensors, without the file's header. Reproduced if every half format of every"
    f" network takes half of float32's, give or take {100 * SIZE_TOLERANCE:g} %; else"
    " contradicted.",
)


def half_size(evidence: Evidence) -> Finding:
    """Judges HALF_SIZE."""
    here, numbers = [], []
    for network, table in evidence.formats.groupby("network", sort=False):
        lines = table.drop_duplicates("dtype").set_index("dtype")
        if FLOAT32 not in lines.index or len(lines) < 2:
            continue
        ratios = (lines.tensor_bytes / lines.tensor_bytes[FLOAT32]).drop(FLOAT32).dropna()
        numbers += [
            {"network": network, "dtype": dtype, "ratio": float(ratio),
             "bytes_on_disk": int(lines.bytes_on_disk[dtype]),
             "float32_bytes_on_disk": int(lines.bytes_on_disk[FLOAT32])}
            for dtype, ratio in ratios.items()
        ]  # fmt: skip
        listed = ", ".join(f"{dtype} {tables.size(line.bytes_on_disk)}"
                           for dtype, line in lines.iterrows())  # fmt: skip
        here.append(f"{network}: {listed}")
    if not numbers:
        why = "float32 and a half format were not both measured for any network"
        return HALF_SIZE.found(NOT_MEASURED, why)
    ratios = [one["ratio"] for one in numbers]
    halved = all(abs(ratio / 0.5 - 1) <= SIZE_TOLERANCE for ratio in ratios)
    listed = dict.fromkeys(f"{ratio:.3f}" for ratio in (min(ratios), max(ratios)))
    why = f"{' to '.join(listed)} of float32's bytes"
    verdict = REPRODUCED if halved else CONTRADICTED
    return HALF_SIZE.found(verdict, why, tuple(here), tuple(numbers))


HALF_ACCURACY = Hypothesis(
    "half_accuracy",
    "Accuracy is the same in all formats",
    "all about 0.83",
    "float32's accuracy minus a half format's, on each device, against the tolerance"
    " (report.tolerance). Where all test images were measured in both it is the exact loss on them,"
    " else an interval. Reproduced if all lie wholly within the tolerance, contradicted if one lies"
    " wholly outside; else undecided.",
)


def _loss(
    reference: Any, line: Any, all_images: int, confidence: float
) -> tuple[float, float, float]:
    """The accuracy of float32 minus that of a half-precision format: estimate, low, high.

    Predictions per image are not stored. On all test images the loss is exact. On a sample, two
    bounds are combined, each at half the error probability: the interval of two accuracies as if of
    different images, and the fact that a loss cannot exceed the share of images on which the two
    formats disagree.
    """
    estimate = reference.accuracy - line.accuracy
    if pd.isna(line.agreement) and pd.isna(reference.agreement):
        return estimate, estimate, estimate
    surer = 0.5 + confidence / 2
    counts = [
        all_images if pd.isna(one.agreement) else int(one.agreement_images)
        for one in (reference, line)
    ]
    apart = statistics.unpaired(
        [Share(reference.accuracy, counts[0])], [Share(line.accuracy, counts[1])], surer
    )
    if pd.isna(line.agreement):
        return estimate, apart.low, apart.high
    differing = np.arange(counts[1]) >= round(line.agreement * counts[1])
    most = statistics.accuracy(differing[None], surer).high
    return estimate, max(apart.low, -most), min(apart.high, most)


def _losses(evidence: Evidence) -> list[dict[str, Any]]:
    """A line for each half-precision format and device that has an accuracy, as has float32."""
    known = evidence.formats[evidence.formats.accuracy.notna()]
    found = []
    for (network, device), table in known.groupby(["network", "device"], sort=False):
        lines = {line.dtype: line for line in table.drop_duplicates("dtype").itertuples()}
        halves = [line for dtype, line in lines.items() if dtype != FLOAT32]
        found += [(network, device, lines[FLOAT32], half) for half in halves if FLOAT32 in lines]
    each = 1 - (1 - evidence.confidence) / max(1, len(found))
    numbers = []
    for network, device, reference, half in found:
        loss, low, high = _loss(reference, half, fair.images(evidence), each)
        sampled = [one.agreement_images for one in (half, reference) if pd.notna(one.agreement)]
        numbers.append(
            {"network": network, "device": device, "dtype": half.dtype, "loss": loss, "low": low,
             "high": high, "confidence": each if sampled else None,
             "images": int(sampled[0]) if sampled else fair.images(evidence),
             "float32_accuracy": reference.accuracy, "accuracy": half.accuracy}
        )  # fmt: skip
    return numbers


def _certainty(loss: Mapping[str, Any]) -> str:
    if loss["confidence"] is None:
        return f", exactly, on all {tables.count(loss['images'])} test images"
    return (
        f" ({tables.points(loss['low'])} to {tables.points(loss['high'])}, from a sample of"
        f" {tables.count(loss['images'])} images)"
    )


def half_accuracy(evidence: Evidence, arms: Arms) -> Finding:
    """Judges HALF_ACCURACY for the networks whose accuracy was measured."""
    unlearned = fair.unlearned(evidence, arms)
    if unlearned:
        return HALF_ACCURACY.found(NOT_MEASURED, unlearned)
    numbers = _losses(evidence)
    if not numbers:
        why = "the accuracies of float32 and of a half format were not both measured on a device"
        return HALF_ACCURACY.found(NOT_MEASURED, why)
    bound = evidence.tolerance + ROUNDING
    inside = sum(-bound <= one["low"] and one["high"] <= bound for one in numbers)
    outside = sum(one["low"] > bound or one["high"] < -bound for one in numbers)
    verdict = CONTRADICTED if outside else REPRODUCED if inside == len(numbers) else UNDECIDED
    here = tuple(
        f"{one['network']} on {one['device']}: float32 {100 * one['float32_accuracy']:.1f} %,"
        f" {one['dtype']} {100 * one['accuracy']:.1f} %; lost {tables.points(one['loss'])} points"
        f"{_certainty(one)}"
        for one in numbers
    )
    why = f"within ±{100 * evidence.tolerance:g} points in {inside} of {len(numbers)}"
    if outside:
        why += f", beyond in {outside}"
    return HALF_ACCURACY.found(verdict, why, here, tuple(numbers))


SPREAD = (
    "Medians of the smallest batch; one is faster where it is below the other by more than half of"
    " both interquartile ranges together (a latency whose spread is not known counts as spread as"
    " far as it is long)."
)
FLOAT32_ON_CPU = Hypothesis(
    "float32_on_cpu",
    "On a CPU float32 is the fastest format",
    "float32 2.04, float16 37.69, bfloat16 29.17 ms",
    f"The baseline on the CPU. {SPREAD} Reproduced if float32 is faster than every half format,"
    " contradicted if one is faster than it; else undecided.",
)
SMALL_NETWORK_ON_GPU = Hypothesis(
    "small_network_on_gpu",
    "On a GPU half formats bring the small network no speed",
    "0.53 → about 0.61 ms",
    f"The baseline on a GPU. {SPREAD} Contradicted if a half format is faster than float32;"
    " reproduced if none is and one at least is slower; else undecided.",
)
LARGE_NETWORK_ON_GPU = Hypothesis(
    "large_network_on_gpu",
    "On a GPU half formats make ResNet-152 faster",
    "7.83 → about 6.68 ms",
    f"ResNet-152 on a GPU. {SPREAD} Reproduced if every half format is faster than float32,"
    " contradicted if one is slower; else undecided.",
)


def _spread(line: Any) -> float:
    return line.latency_ms if pd.isna(line.latency_iqr_ms) else line.latency_iqr_ms


def _faster(one: Any, other: Any) -> bool:
    """Whether a format is faster than another by the rule SPREAD."""
    return other.latency_ms - one.latency_ms > (_spread(one) + _spread(other)) / 2


def _smallest_batch(evidence: Evidence, network: str, device: str) -> pd.DataFrame:
    table = evidence.formats
    chosen = table[(table.network == network) & (table.device == device)]
    return chosen[chosen.batch_size == chosen.batch_size.min()]


def _latency(line: Any) -> str:
    if pd.isna(line.latency_ms):
        return f"{line.dtype}: {line.note if isinstance(line.note, str) else 'not measured'}"
    spread = "" if pd.isna(line.latency_iqr_ms) else f" ± {tables.milliseconds(_spread(line) / 2)}"
    return f"{line.dtype} {tables.milliseconds(line.latency_ms)}{spread} ms"


def _timed(
    hypothesis: Hypothesis,
    table: pd.DataFrame,
    verdict: Callable[[int, int, int], str],
    notes: Sequence[str] = (),
) -> Finding:
    """Judges a claim about latencies.

    verdict: takes the number of half-precision formats that are slower than float32, the number
        that are faster, and the number of all.
    """
    lines = list(table.itertuples())
    known = {line.dtype: line for line in lines if pd.notna(line.latency_ms)}
    single, halves = known.get(FLOAT32), [one for name, one in known.items() if name != FLOAT32]
    if single is None or not halves:
        told = [line.note for line in lines if isinstance(line.note, str) and line.note]
        why = told[0] if told else "float32 and a half format were not both timed"
        return hypothesis.found(NOT_MEASURED, why)
    slower = [half.dtype for half in halves if _faster(single, half)]
    faster = [half.dtype for half in halves if _faster(half, single)]
    level = [half.dtype for half in halves if half.dtype not in slower + faster]
    why = "; ".join(
        f"{' and '.join(names)} {text}"
        for names, text in (
            (faster, "faster than float32"),
            (slower, "slower than float32"),
            (level, "within the spread of float32"),
        )
        if names
    )
    numbers = tuple(
        {"dtype": line.dtype, "batch_size": int(line.batch_size), "runs": int(line.runs),
         "latency_ms": float(line.latency_ms), "latency_iqr_ms": _number(line.latency_iqr_ms)}
        for line in known.values()
    )  # fmt: skip
    batch = f"batch {int(single.batch_size)}, median ± half the interquartile range"
    here = (f"{', '.join(map(_latency, lines))} ({batch})", *notes)
    return hypothesis.found(verdict(len(slower), len(faster), len(halves)), why, here, numbers)


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _all_or_none(right: int, wrong: int, count: int) -> str:
    if wrong:
        return CONTRADICTED
    return REPRODUCED if right == count else UNDECIDED


def _native(isa: Sequence[str]) -> str:
    """A sentence about the CPU's instructions for half precision, which decide the claim."""
    parts = []
    for dtype, wanted in hardware.HALF_INSTRUCTIONS.items():
        present = ", ".join(sorted(wanted.intersection(isa)))
        parts.append(f"{present} for {dtype}" if present else f"none for {dtype}")
    return (
        "it hangs on the CPU's instructions for half formats, and on whether the network is large"
        f" enough to gain by them; this CPU has {', '.join(parts)}"
    )


def float32_on_cpu(evidence: Evidence) -> Finding:
    """Judges FLOAT32_ON_CPU."""
    table = _smallest_batch(evidence, "baseline", "cpu")
    return _timed(FLOAT32_ON_CPU, table, _all_or_none, [_native(evidence.isa)])


def small_network_on_gpu(evidence: Evidence) -> Finding:
    """Judges SMALL_NETWORK_ON_GPU."""
    table = _smallest_batch(evidence, "baseline", "cuda")
    return _timed(SMALL_NETWORK_ON_GPU, table, lambda slower, faster, _: weigh(slower, faster))


def large_network_on_gpu(evidence: Evidence) -> Finding:
    """Judges LARGE_NETWORK_ON_GPU."""
    table = _smallest_batch(evidence, "resnet152", "cuda")
    return _timed(
        LARGE_NETWORK_ON_GPU,
        table,
        lambda slower, faster, count: _all_or_none(faster, slower, count),
    )
