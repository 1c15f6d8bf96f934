"""The claims about number formats, stated before anything is measured: bytes, accuracy and time of
half precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from stages.lib.analysis import evidence as fair
from stages.lib.analysis import latencies, tables
from stages.lib.analysis.evidence import Arms, Evidence
from stages.lib.analysis.verdicts import (
    CONTRADICTED,
    ONE_SEED,
    REPRODUCED,
    Finding,
    of_one_seed,
    weigh,
)
from stages.lib.core import hardware, records

FLOAT32 = "float32"
# The step counters of batch norms are 64-bit integers in every format.
SIZE_TOLERANCE = 0.05
# Tables have six digits: a loss of exactly the tolerance must not count as larger.
ROUNDING = 1e-6

HALF_SIZE = Finding(
    "half_size",
    "float16 and bfloat16 halve the file",
    "ConvNet 1.31 → 0.65 MB, ResNet-152 229.6 → 114.8 MB",
    "Bytes of all tensors, without the file's header. Reproduced if half precision takes half of"
    f" float32's in every network, give or take {100 * SIZE_TOLERANCE:g} %; else contradicted.",
)


def half_size(evidence: Evidence) -> Finding:
    """Judges HALF_SIZE."""
    lines = evidence.formats.dropna(subset=["tensor_bytes"]).drop_duplicates(["network", "dtype"])
    single = lines[lines.dtype == FLOAT32].set_index("network").tensor_bytes
    lines = lines.assign(ratio=lines.tensor_bytes / lines.network.map(single))
    half = lines[(lines.dtype != FLOAT32) & lines.ratio.notna()]
    if half.empty:
        return replace(HALF_SIZE, why="float32 and half precision were not both measured")
    halved = (half.ratio / 0.5 - 1).abs().max() <= SIZE_TOLERANCE
    ends = dict.fromkeys(f"{ratio:.3f}" for ratio in (half.ratio.min(), half.ratio.max()))
    sizes = lines.dtype + " " + lines.bytes_on_disk.map(tables.size)
    numbers = half[["network", "dtype", "ratio", "bytes_on_disk"]].to_dict("records")
    return replace(
        HALF_SIZE,
        verdict=REPRODUCED if halved else CONTRADICTED,
        why=f"{' to '.join(ends)} of float32's bytes",
        here=tuple(
            f"{network}: {', '.join(part)}"
            for network, part in sizes.groupby(lines.network, sort=False)
        ),
        evidence=tuple(numbers),
    )


HALF_ACCURACY = Finding(
    "half_accuracy",
    "Accuracy is the same in all formats",
    "all about 0.83",
    "float32's accuracy minus that in half precision, on each device, exactly, on all test images."
    " Reproduced if all lie within the tolerance (report.tolerance), contradicted if one lies"
    " outside; undecided if one was measured on a sample alone. Of the first seed's network."
    f" {ONE_SEED}",
)


def half_accuracy(evidence: Evidence, arms: Arms) -> Finding:
    """Judges HALF_ACCURACY, for the networks whose accuracy was measured."""
    known = evidence.formats[evidence.formats.accuracy.notna()]
    known = known.drop_duplicates(["network", "device", "dtype"])
    single, half = (known[known.dtype == FLOAT32], known[known.dtype != FLOAT32])
    pairs = half.merge(single, on=["network", "device"], suffixes=("", "_32"))
    unlearned = fair.unlearned(evidence, arms)
    if unlearned or pairs.empty:
        why = unlearned or "float32's accuracy and that in half precision were not both measured"
        return replace(HALF_ACCURACY, why=why)
    pairs = pairs.assign(loss=pairs.accuracy_32 - pairs.accuracy)
    sampled = pairs.agreement.notna() | pairs.agreement_32.notna()
    outside = (pairs.loss.abs() > evidence.tolerance + ROUNDING) & ~sampled
    why = f"within ±{100 * evidence.tolerance:g} points in {(~outside & ~sampled).sum()}"
    why += f" of {len(pairs)}"
    for what, count in (("beyond in", outside.sum()), ("a sample alone in", sampled.sum())):
        why += f", {what} {count}" if count else ""
    verdict, why = of_one_seed(weigh(not (outside | sampled).any(), outside.any()), why)
    numbers = pairs[["network", "device", "dtype", "accuracy_32", "accuracy", "loss"]]
    here = tuple(
        f"{line.network} on {line.device}: float32 {100 * line.accuracy_32:.1f} %, {line.dtype}"
        f" {100 * line.accuracy:.1f} %; lost {tables.points(line.loss)} points"
        for line in pairs.itertuples()
    )
    told = tuple(numbers.to_dict("records"))
    return replace(HALF_ACCURACY, verdict=verdict, why=why, here=here, evidence=told)


@dataclass(frozen=True)
class Timed:
    """A claim about the latency of a network in half precision on a device.

    id, title, course: as of a Finding.
    slower: whether the claim is that half precision is slower; else that it is faster.
    every: whether all half-precision formats must be.
    """

    id: str
    title: str
    course: str
    network: str
    device: str
    slower: bool
    every: bool

    @property
    def hypothesis(self) -> Finding:
        """The claim, with the rule by which it is judged."""
        wanted, unwanted = ("slower", "faster") if self.slower else ("faster", "slower")
        return Finding(
            self.id,
            self.title,
            self.course,
            f"{self.network} on {self.device}, medians of the smallest batch. Reproduced if"
            f" {'every' if self.every else 'a'} format of half precision is {wanted} than float32,"
            f" contradicted if one is {unwanted}; else undecided. One is faster where it is below"
            " the other by more than half of both IQRs together. A latency whose IQR passes"
            f" {100 * records.MOST_IQR:g} % of it is not ranked, and nothing is reproduced by it.",
        )


TIMED = (
    Timed(
        "float32_on_cpu", "On a CPU float32 is the fastest format",
        "float32 2.04, float16 37.69, bfloat16 29.17 ms", "baseline", "cpu",
        slower=True, every=True,
    ),
    Timed(
        "small_network_on_gpu", "On a GPU half precision brings the small network no speed",
        "0.53 → about 0.61 ms", "baseline", "cuda", slower=True, every=False,
    ),
    Timed(
        "large_network_on_gpu", "On a GPU half precision makes ResNet-152 faster",
        "7.83 → about 6.68 ms", "resnet152", "cuda", slower=False, every=True,
    ),
)  # fmt: skip


def _native(isa: Sequence[str]) -> str:
    """A sentence about the CPU's instructions for half precision, which decide the claim."""
    parts = (
        f"{', '.join(sorted(wanted.intersection(isa))) or 'none'} for {dtype}"
        for dtype, wanted in hardware.HALF_INSTRUCTIONS.items()
    )
    return f"it hangs on the CPU's instructions for half precision: {', '.join(parts)}"


def _told(line: Any) -> str:
    if pd.isna(line.latency_ms):
        return f"{line.dtype}: {line.note or 'not measured'}"
    half = line.latency_iqr_ms / 2
    iqr = "" if pd.isna(half) else f" ± {tables.milliseconds(half)}"
    return f"{line.dtype} {tables.milliseconds(line.latency_ms)}{iqr} ms"


def timed(claim: Timed, evidence: Evidence) -> Finding:
    """Judges a claim about latencies by the rule of its hypothesis."""
    table = evidence.formats
    table = table[(table.network == claim.network) & (table.device == claim.device)]
    table = table[table.batch_size == table.batch_size.min()]
    lines, measured = list(table.itertuples()), table.dropna(subset=["latency_ms"])
    known = {line.dtype: latencies.of_line(line, line.dtype) for line in measured.itertuples()}
    single = known.get(FLOAT32)
    half = {dtype: latency for dtype, latency in known.items() if dtype != FLOAT32}
    if single is None or not half:
        notes = [line.note for line in lines if line.note]
        why = notes[0] if notes else "float32 and half precision were not both timed"
        return replace(claim.hypothesis, why=why)
    slower = [dtype for dtype, latency in half.items() if single.is_faster(latency)]
    faster = [dtype for dtype, latency in half.items() if latency.is_faster(single)]
    unranked = [dtype for dtype, latency in known.items() if not latency.ranked]
    level = [dtype for dtype in half if not unranked and dtype not in (*slower, *faster)]
    groups = {
        "faster than float32": faster,
        "slower than float32": slower,
        "within the spread of float32": level,
        f"not ranked: the IQR passes {100 * records.MOST_IQR:g} % of the latency": unranked,
    }
    told = [f"{', '.join(map(_told, lines))} (batch {single.batch_size}, median ± half the IQR)"]
    if claim.device == "cpu":
        told.append(_native(evidence.isa))
    right, wrong = (slower, faster) if claim.slower else (faster, slower)
    wanted = len(right) == len(half) if claim.every else bool(right)
    columns = ["dtype", "batch_size", "latency_ms", "latency_iqr_ms"]
    return replace(
        claim.hypothesis,
        verdict=weigh(wanted and not unranked, bool(wrong)),
        why="; ".join(f"{' and '.join(names)} {text}" for text, names in groups.items() if names),
        here=tuple(told),
        evidence=tuple(measured[columns].to_dict("records")),
    )
