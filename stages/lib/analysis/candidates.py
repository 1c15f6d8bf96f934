"""The networks that can be had: every whole network of a run, with what it costs and what it is
worth; and the cheapest of them at each loss of accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from stages.lib.analysis import pareto, tables

# Losses of accuracy (shares; 0.01 is one point) at which people ask what can be had.
LOSSES = (0.0, 0.005, 0.01, 0.02)
# What can be cheap, and the least share of it that a network must save to be worth naming: a
# file's header, or the noise of a clock, is no saving.
COSTS = {"bytes_on_disk": 0.01, "macs": 0.01, "relative_latency": 0.05}
FINETUNED = "_finetune"
# The engine of records.ENGINE_LATENCY that all others are compared with.
TORCH = "torch"


@dataclass(frozen=True)
class Answer:
    """loss: of validation accuracy, a share; choices: by cost, the row of `table` that is the
    cheapest within it: the dense network's where no other saves anything, None where the cost
    was not measured.
    """

    loss: float
    choices: dict[str, pd.Series | None]


def latency_setting(latencies: pd.DataFrame) -> tuple[str, int]:
    """Device and batch size of the latencies that networks are compared by: the first device, the
    smallest batch.
    """
    return latencies.device.iloc[0], int(latencies.batch_size.min())


def _latencies(latencies: pd.DataFrame) -> pd.DataFrame:
    """KEYS of `tables`, relative_latency (to the dense network's, timed in turns with it:
    median over seeds) and latency_ms: that share of the dense network's median over seeds, so that
    what is faster by the one is faster by the other. Fine-tuning changes no shape, so a network
    trained again has the same.
    """
    device, batch = latency_setting(latencies)
    chosen = latencies[(latencies.device == device) & (latencies.batch_size == batch)]
    found = chosen.groupby(["method", "target_sparsity"], as_index=False).agg(
        relative_latency=("relative_to_baseline", "median")
    )
    dense = chosen[chosen.method == "baseline"].latency_ms.median()
    found["latency_ms"] = dense * found.relative_latency
    small = found[found.method.str.startswith("structured")]
    trained = small.assign(method=small.method + FINETUNED)
    return pd.concat([found, trained], ignore_index=True).assign(weight_bits=32, times_smaller=1.0)


def _of_files(engines: pd.DataFrame, batch: int) -> pd.DataFrame:
    """As `_latencies`, of what ONNX Runtime executes: relative to the dense network in torch."""
    here = engines[engines.batch_size == batch]
    dense = here[(here.method == "baseline") & (here.engine == TORCH)].latency_ms.median()
    files = here[here.method.isin(tables.DEPLOYED) & here.latency_ms.notna()]
    found = files.groupby(list(tables.KEYS[:3]), as_index=False).agg(
        relative_latency=("relative_to_eager", "median")
    )
    return found.assign(latency_ms=dense * found.relative_latency, times_smaller=1.0)


def is_masked(method: str, weight_bits: int) -> bool:
    """Whether a network's zeros stand in tensors of the dense shape, so that only sparse kernels
    could skip them.
    """
    if method in tables.DEPLOYED:
        return method.startswith("onnx_finetune")
    if method in tables.PACKED:
        return method != "packed_quantized"
    dense = method in ("baseline", f"baseline{FINETUNED}", "baseline_long")
    return weight_bits == 32 and not dense and not method.startswith("structured")


def table(
    summary: pd.DataFrame, latencies: pd.DataFrame, engines: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per whole network: its columns of `summary` (with low and high), `network` (in
    words), `masked`, and latency_ms and relative_latency, NaN where it was not timed.

    engines: the latencies of ONNX files; they were timed on a CPU, and stand beside those of
    `latencies` where these are of a CPU too.

    Quantized weights of several widths share a container of 8 or 16 bits: of each file size the
    widest alone is there, as the others are as large and no better.
    """
    whole = summary[summary.layer == "all"]
    widest = whole.groupby(["method", "bytes_on_disk"]).weight_bits.transform("max")
    whole = whole[(whole.weight_bits == 32) | (whole.weight_bits == widest)]
    timed = _latencies(latencies)
    device, batch = latency_setting(latencies)
    if engines is not None and device == "cpu":
        timed = pd.concat([timed, _of_files(engines, batch)], ignore_index=True)
    joined = whole.merge(timed, "left", list(tables.KEYS))
    return joined.assign(
        network=[
            tables.network(line.method, line.weight_bits, _told(line), line.times_smaller)
            for line in joined.itertuples()
        ],
        masked=[is_masked(line.method, line.weight_bits) for line in joined.itertuples()],
    )


def _told(line) -> float:
    """The sparsity by which a network is called: that of quantized weights tells nothing."""
    if line.weight_bits < 32 and line.method not in tables.DEPLOYED:
        return 0.0
    return line.target_sparsity or (line.sparsity if line.method in tables.METHODS else 0.0)


def clock_noise(latencies: pd.DataFrame) -> float:
    """The largest share by which the masked networks, which do the dense one's work, were faster
    or slower than it, in any seed: what a ratio of the compared latencies is off by.
    """
    device, batch = latency_setting(latencies)
    here = latencies[(latencies.device == device) & (latencies.batch_size == batch)]
    equal = here[here.method == "global"].relative_to_baseline
    return float((equal - 1).abs().max()) if len(equal) else 0.0


def answers(
    found: pd.DataFrame, noise: float = 0.0, losses: Sequence[float] = LOSSES
) -> list[Answer]:
    """The cheapest network of `table` at each loss, chosen on validation accuracy alone.

    noise: a share of latency (`clock_noise`); a smaller saving is none.
    """
    dense = found[found.method == "baseline"].iloc[0]
    result = []
    for loss in losses:
        choices = {}
        for cost, saving in COSTS.items():
            if cost == "relative_latency":
                saving = max(saving, noise)
            # A mask alone leaves the dense network's work to do: what it seems to save is noise.
            saves = (found[cost] <= dense[cost] * (1 - saving)) & ~(
                found.masked & (cost == "relative_latency")
            )
            worth = found[(found.method == "baseline") | saves]
            choices[cost] = pareto.cheapest(
                worth, cost, dense.validation_accuracy - loss, "validation_accuracy"
            )
        result.append(Answer(loss, choices))
    return result
