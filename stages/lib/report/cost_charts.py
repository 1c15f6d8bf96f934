"""Charts of what accuracy costs: bytes on disk, latency, MACs."""

import altair as alt
import pandas as pd

from stages.lib.analysis import ladder, pareto, tables
from stages.lib.report import accuracy_charts, charts
from stages.lib.report.charts import Look, Panel

KIB = 1024
# By whether it is float32.
ONNX_NAMES = {True: "ONNX Runtime, float32", False: "ONNX Runtime, int8"}
# Latencies of number formats are told apart by batch size.
BATCH_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]


def cast_networks(formats: pd.DataFrame, device: str, batch: int, dense: pd.Series) -> pd.DataFrame:
    """The trained network in half formats, as `candidates.table` has networks: accuracies of the
    first seed, latencies relative to float32's in the same bench.

    Only what was measured on all test images is there.
    """
    lines = formats[(formats.network == "baseline") & formats.accuracy.notna()]
    lines = lines[lines.agreement.isna()]
    here = lines[lines.device == device]
    here = here[
        here.batch_size == (batch if batch in set(here.batch_size) else here.batch_size.min())
    ]
    whole = here[here.dtype == "float32"].latency_ms
    half = here[here.dtype != "float32"]
    if half.empty:
        half = lines[lines.dtype != "float32"].drop_duplicates("dtype").assign(latency_ms=None)
    return pd.DataFrame(
        {
            "network": half.dtype,
            "method": "cast",
            "weight_bits": 16,
            "test_accuracy": half.accuracy,
            "low": half.accuracy,
            "high": half.accuracy,
            "bytes_on_disk": half.bytes_on_disk,
            "macs": dense.macs,
            "sparsity": 0.0,
            "latency_ms": half.latency_ms.astype(float),
            "relative_latency": half.latency_ms.astype(float)
            / (whole.iloc[0] if len(whole) else float("nan")),
        }
    )


def _name(line) -> str:
    if line.method == "cast":
        return "cast to a half format"
    if line.method in tables.PACKED:
        return tables.PACKED[line.method]
    if line.method in tables.DEPLOYED:
        return ONNX_NAMES[line.weight_bits == 32]
    return "quantized weights" if line.weight_bits < 32 else tables.METHODS[line.method]


def _looks(lines: pd.DataFrame) -> dict[str, Look]:
    found = charts.looks_of(lines[lines.weight_bits == 32].method)
    others = {
        "cast to a half format": charts.CAST,
        "quantized weights": charts.INTEGER,
        **{tables.PACKED[method]: look for method, look in charts.DEPLOYED.items()},
        ONNX_NAMES[True]: charts.ONNX[32],
        ONNX_NAMES[False]: charts.ONNX[8],
    }
    there = {
        _name(line) for line in lines[["method", "weight_bits"]].drop_duplicates().itertuples()
    }
    return found | {name: look for name, look in others.items() if name in there}


def front(networks: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The networks that no other beats in both `cost` and test accuracy, cheapest first."""
    known = networks[networks[cost].notna()]
    on_front = pareto.pareto_front(known[cost].to_numpy(), known.test_accuracy.to_numpy())
    return known[on_front].sort_values([cost, "test_accuracy"], kind="stable")


def _against_cost(networks: pd.DataFrame, cost: str, x: alt.X) -> Panel:
    """Accuracy of every network against a cost, the front through the best of them."""
    known = networks[networks[cost].notna()].copy()
    dense = known[known.method == "baseline"].test_accuracy.iloc[0]
    scale = alt.Scale(domain=accuracy_charts.close_up_range(known, dense), nice=False)
    best = front(networks, cost)
    known["name"] = [_name(line) for line in known.itertuples()]
    known["accuracy_text"] = [
        tables.estimate(line.test_accuracy, line.low, line.high) for line in known.itertuples()
    ]
    known["size_text"] = known.bytes_on_disk.map(tables.size)
    known["work_text"] = known.macs.map(tables.count)
    known["time_text"] = [
        f"{tables.milliseconds(line.latency_ms)} ms, {line.relative_latency:.2f} × dense"
        if pd.notna(line.relative_latency)
        else "not timed"
        for line in known.itertuples()
    ]
    known["front"] = known.index.isin(best.index)
    shown = known[
        [cost, "name", "network", "test_accuracy", "low", "high", "accuracy_text", "size_text",
         "work_text", "time_text", "front"]
    ]  # fmt: skip
    looks, picked = charts.by_name(_looks(known)), charts.picked()
    y = alt.Y("test_accuracy:Q", axis=charts.percent_axis("test accuracy"), scale=scale)
    steps = (
        alt.Chart(best[[cost, "test_accuracy"]])
        .mark_line(
            interpolate="step-after", color=charts.INK, strokeWidth=1.5, opacity=0.55, clip=True
        )
        .encode(x=x, y=y)
    )
    base = alt.Chart(shown).encode(x=x, stroke=looks["stroke"])
    bars = charts.error_bars(base, scale, picked, (0.35, 0.03), clip=True)
    dots = (
        base.mark_point(clip=True)
        .encode(
            y=y,
            shape=looks["shape"],
            fill=looks["fill"],
            size=alt.condition("datum.front", alt.value(110), alt.value(45)),
            opacity=alt.condition(picked, alt.value(0.95), alt.value(0.08)),
            tooltip=charts.hover(
                "network",
                ("accuracy_text", "test accuracy"),
                ("size_text", "file"),
                ("work_text", "MACs"),
                ("time_text", "latency"),
            ),
        )
        .add_params(picked)
    )
    return Panel("", alt.layer(steps, bars, dots).properties(height=340))


def _size_ticks(least: float, most: float) -> list[int]:
    """Powers of two of bytes around and between two sizes, nine at most."""
    low, high = int(least).bit_length() - 1, int(most).bit_length()
    step = -(-(high - low) // 8)
    return [2**power for power in range(low, high + 1, step)]


def size_axis(sizes: pd.Series, title: str) -> dict:
    """Axis and scale of bytes, logarithmic, in binary units. sizes: bytes, above 0."""
    units = " : ".join(
        f"datum.value >= {unit} ? format(datum.value / {unit}, '~r') + ' {name}'"
        for unit, name in ((KIB**3, "GiB"), (KIB**2, "MiB"), (KIB, "KiB"))
    )
    ticks = _size_ticks(sizes.min(), sizes.max())
    return {
        "axis": alt.Axis(
            title=title, values=ticks, labelExpr=f"{units} : datum.value + ' B'", grid=True
        ),
        "scale": alt.Scale(
            type="log", base=2, domain=[sizes.min() * 0.85, sizes.max() * 1.15], nice=False
        ),
    }


def against_size(networks: pd.DataFrame) -> Panel:
    """Test accuracy against bytes on disk. networks: `candidates.table`, and `cast_networks`."""
    axis = size_axis(networks.bytes_on_disk, "file (logarithmic)")
    return _against_cost(networks, "bytes_on_disk", alt.X("bytes_on_disk:Q", **axis))


def _log_axis(values: pd.Series, title: str, unit: str, margins: tuple[float, float]) -> dict:
    """Axis and scale of positive numbers; margins: factors of room below the least and above the
    most.
    """
    low, high = float(values.min()) / margins[0], float(values.max()) * margins[1]
    return charts.log_axis(low, high, title, unit)


def against_latency(networks: pd.DataFrame, device: str, batch: int) -> Panel:
    """Test accuracy against latency, relative to the dense float32 network's. networks: as for
    `against_size`.
    """
    title = f"× dense latency, batch {batch}, {device}"
    axis = _log_axis(networks.relative_latency.dropna(), title, " ×", (1.08, 1.08))
    return _against_cost(networks, "relative_latency", alt.X("relative_latency:Q", **axis))


def ladder_of_sizes(rungs: pd.DataFrame) -> Panel:
    """A bar for each form of the network. rungs: name, bytes, kind and note, as `ladder.rungs`
    gives them; any others may be added.
    """
    shown = rungs.assign(
        size_text=rungs.bytes.map(tables.size),
        share_text=(rungs.bytes.max() / rungs.bytes).map("{:.1f} × smaller".format),
        kind=rungs.kind.map({ladder.FILE: "file, measured", ladder.ESTIMATE: "calculated"}),
    )
    base = alt.Chart(shown).encode(
        x=alt.X(
            "bytes:Q",
            axis=None,
            scale=alt.Scale(domain=[0, 1.4 * float(rungs.bytes.max())], nice=False),
        ),
        y=alt.Y(
            "name:N",
            sort=None,
            title=None,
            axis=alt.Axis(
                grid=False, ticks=False, domain=False, labelLimit=0,
                labelExpr="narrow ? split(datum.label, ', ') : datum.label",
            ),
        ),
        tooltip=charts.hover(
            "name",
            ("size_text", "size"),
            ("share_text", "than the largest"),
            ("kind", "how it is known"),
            ("note", "note"),
        ),
    )  # fmt: skip
    kinds = ["file, measured", "calculated"]
    bars = base.mark_bar(height={"band": 0.68}, cornerRadiusEnd=2).encode(
        color=alt.Color(
            "kind:N", title=None, scale=alt.Scale(domain=kinds, range=["#0072B2", "#56B4E9"])
        ),
    )
    text = base.mark_text(align="left", dx=6, fontSize=12).encode(text="size_text:N")
    chart = alt.layer(bars, text).properties(height=34 * len(rungs)).add_params(charts.NARROW)
    return Panel("", chart, 420)


def structured_latency(latencies: pd.DataFrame, summary: pd.DataFrame) -> list[Panel]:
    """Latency of the smaller networks against their MACs, both relative to the dense
    network: a panel for each device and batch size.
    """
    work = summary[(summary.layer == "all") & (summary.weight_bits == 32)]
    work = work[["method", "target_sparsity", "macs"]]
    dense = work[work.method == "baseline"].macs.iloc[0]
    keys = ["method", "target_sparsity", "device", "batch_size"]
    data = latencies.groupby(keys, as_index=False, sort=False).agg(
        relative_latency=("relative_to_baseline", "median"), latency_ms=("latency_ms", "median")
    )
    data = data.merge(work, on=["method", "target_sparsity"])
    data["relative_work"] = data.macs / dense
    data["name"] = data.method.map(tables.METHODS)
    data["network"] = [
        tables.network(line.method, 32, line.target_sparsity) for line in data.itertuples()
    ]
    data["work_text"] = data.relative_work.map("{:.1%}".format)
    data["time_text"] = [
        f"{tables.milliseconds(line.latency_ms)} ms, {line.relative_latency:.2f} × dense"
        for line in data.itertuples()
    ]
    most = 1.05 * float(data.relative_latency.max())
    looks = charts.by_name(charts.looks_of(data.method))
    panels = []
    for (device, batch), lines in data.groupby(["device", "batch_size"]):
        picked = charts.picked(len(panels))
        chart = (
            alt.Chart(lines.drop(columns=["device", "batch_size"]), height=260)
            .mark_point(size=75)
            .encode(
                x=alt.X(
                    "relative_work:Q",
                    axis=charts.percent_axis("MACs, of the dense network's"),
                    scale=alt.Scale(domain=[0, 1]),
                ),
                y=alt.Y(
                    "relative_latency:Q",
                    axis=charts.percent_axis("latency, of the dense network's"),
                    scale=alt.Scale(domain=[0, most], nice=False),
                ),
                stroke=looks["stroke"],
                fill=looks["fill"],
                shape=looks["shape"],
                opacity=alt.condition(picked, alt.value(0.95), alt.value(0.1)),
                tooltip=charts.hover("network", ("work_text", "MACs"), ("time_text", "latency")),
            )
            .add_params(picked)
        )
        panels.append(Panel(f"batch {batch} on {device}", chart, 300))
    return panels


def format_latency(formats: pd.DataFrame) -> list[Panel]:
    """Latency by number format, on a logarithmic axis: a panel for each network and device."""
    known = formats[formats.latency_ms.notna()].copy()
    if known.empty:
        return [Panel("", charts.nothing("No latency was measured: the table says why."))]
    known["name"] = "batch " + known.batch_size.astype(str)
    known["heading"] = known.dtype + ", " + known.name
    known["label"] = known.latency_ms.map(tables.milliseconds) + " ms"
    known["spread_text"] = [
        f"{tables.milliseconds(value)} ms" if pd.notna(value) else "not known"
        for value in known.latency_iqr_ms
    ]
    order = list(dict.fromkeys(formats.dtype))
    names = list(dict.fromkeys(known.sort_values("batch_size").name))
    panels = []
    for (network, shape, device), lines in known.groupby(
        ["network", "image_shape", "device"], sort=False
    ):
        picked = charts.picked(len(panels))
        base = alt.Chart(
            lines[["dtype", "name", "heading", "latency_ms", "label", "spread_text"]]
        ).encode(
            x=alt.X("latency_ms:Q", **_log_axis(lines.latency_ms, "ms a call", "", (1.3, 4))),
            y=alt.Y("dtype:N", sort=order, title=None, axis=alt.Axis(grid=True)),
            yOffset=alt.YOffset("name:N", sort=names),
            color=alt.Color(
                "name:N",
                title=None,
                sort=names,
                scale=alt.Scale(domain=names, range=BATCH_COLOURS),
            ),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
            tooltip=charts.hover("heading", ("label", "median"), ("spread_text", "spread")),
        )
        dots = base.mark_point(filled=True, size=80).add_params(picked)
        text = base.mark_text(align="left", dx=9, fontSize=11).encode(
            text="label:N", color=alt.value(charts.INK)
        )
        chart = alt.layer(dots, text).properties(height=44 * max(2, lines.dtype.nunique()))
        panels.append(Panel(f"{network} {shape} on {device}", chart, 300))
    return panels
