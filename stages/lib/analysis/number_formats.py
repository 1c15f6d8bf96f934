"""Joins number formats with their latencies. One stage measures bytes and accuracy; the stage that
times all networks in turns measures latencies.
"""

import pandas as pd

from stages.lib.core import records

# The device of latencies by CUDA graphs.
REPLAYED = "cuda, CUDA graph"
TIMED = ["batch_size", "threads", "latency_ms", "latency_iqr_ms", "repetitions"]


def with_latencies(formats: pd.DataFrame, latencies: pd.DataFrame) -> pd.DataFrame:
    """A line for each network, device, number format and batch size.

    formats: records.FORMAT of dtype_bench, which is of the first seed.
    latencies: records.LATENCY of latency_bench, and of dtype_bench for networks that latency_bench
        does not have. Of several seeds, the first is taken.

    Returns the columns of records.FORMAT and TIMED. A network that was not timed on a device has a
    line, with latency_ms and latency_iqr_ms missing and 0 repetitions, for each batch size that it
    was timed with on another device, or one line with batch size 0. Notes of both are joined. What
    was replayed from a CUDA graph has lines of its own, with the device REPLAYED.
    """
    formats = formats.assign(engine=formats.dtype.map(records.torch_engine))
    keys = ["network", "device", "engine", "batch_size"]
    timed = latencies.rename(columns={"method": "network"}).drop_duplicates(keys)
    timed = timed[timed.target_sparsity == 0][[*keys, *TIMED[1:], "note"]]
    sizes = timed[["network", "batch_size"]].drop_duplicates()
    joined = formats.merge(sizes, how="left", on="network").merge(
        timed, how="left", on=keys, suffixes=("", "_of_latency")
    )
    graphs = {records.torch_engine(dtype, replayed=True): dtype for dtype in formats.dtype}
    lines = timed[timed.engine.isin(graphs)]
    lines = lines.assign(dtype=lines.engine.map(graphs), note_of_latency=lines.note)
    lines = lines.drop(columns=["engine", "note"]).merge(
        formats.drop(columns="engine"), on=["network", "device", "dtype"]
    )
    # Accuracy and memory are of the eager network.
    unmeasured = dict.fromkeys(["accuracy", "agreement", "agreement_images", "peak_memory_bytes"])
    lines = lines.assign(device=REPLAYED, **unmeasured)
    joined = pd.concat([joined, lines], ignore_index=True)
    notes = joined[["note_of_latency", "note"]].astype(object).fillna("")
    counts = ["batch_size", "threads", "repetitions"]
    joined[counts] = joined[counts].fillna(0).astype(int)
    joined["note"] = ["; ".join(filter(None, both)) for both in notes.itertuples(index=False)]
    return joined[[*records.FORMAT, *TIMED]]
