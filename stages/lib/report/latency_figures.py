"""Figures of latencies: engines, smaller networks, number formats."""

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.analysis.tables import Table, of_family
from stages.lib.core import methods
from stages.lib.core.engines import ENGINES
from stages.lib.core.records import ALL_LAYERS
from stages.lib.report import charts, columns, words
from stages.lib.report.charts import Look, Panel, Plot
from stages.lib.report.columns import Column
from stages.lib.report.figure import Figure, figure
from stages.lib.report.run import COURSE, CPU, TORCH, Run, is_ranked

LOOKS = {engine.title: Look(*engine.look) for engine in ENGINES.values()} | {
    "torch bfloat16": Look("#C2609C", "triangle-up"),
    "torch float16": Look("#B97A00", "triangle-down"),
}
# Each batch size has a colour.
COLOURS = ("#0072B2", "#B97A00", "#00936B", "#C2609C")
SPEEDUP = "× faster than torch float32"
NOTHING = "No latency was measured: the table says why."
ENGINE = Column("engine", "engine", words.engine)
DEVICE = Column("device", "device")
TIMES = Column("latency", "latency_ms", lambda value: f"{tables.milliseconds(value)} ms")
TELLS = (TIMES, TIMES._replace(title="IQR", fields="latency_iqr_ms"), columns.SPEEDUP)


def engine_lines(run: Run) -> pd.DataFrame:
    """Every network in every engine on the CPU, from `Run.timed`. `name`: the engine; `label`: the
    speedup.
    """
    lines = run.timed[run.timed.device == CPU]
    return lines.assign(
        name=lines.engine.map(words.engine),
        label=columns.SPEEDUP.texts(lines),
        network=[_network(line) for line in lines.itertuples()],
    )


def _network(line) -> str:
    """The name of a network without its engine: "structured, global + fine-tuning, 80 %, int8"."""
    method = methods.METHODS[line.method]
    if method.family != methods.ONNX:
        return line.network
    text = tables.network(method.continues, 32, line.target_sparsity)
    form = "" if line.weight_bits == 32 else ", int8"
    calibrations = {
        methods.exported_name(method.continues, "int8", name): f" ({name})"
        for name in methods.CALIBRATIONS
    }
    return f"{text}{form}{calibrations.get(line.method, '')}"


def engines(run: Run) -> Figure | None:
    """The same networks in torch and in other engines, with a panel for each batch size. Networks
    that torch alone executes are in the table.
    """
    lines = engine_lines(run)
    if lines.empty:
        return None
    # Of a slow network, ONNX Runtime may fit into the time limit where torch does not.
    known = lines[lines.speedup.notna()]
    others = known[known.engine != TORCH].network
    known = known[known.network.isin(others)]
    panels, order, layers = [], list(dict.fromkeys(known.network)), int8_layers(run)
    for batch, here in known.groupby("batch_size"):
        best = here.speedup == here.groupby("network").speedup.transform("max")
        here = here.assign(label=here.label.where(best, ""))
        plot = Plot(
            here,
            charts.logarithmic("speedup", here.speedup, SPEEDUP, " ×", (1.2, 2.8)),
            charts.names("network", charts.BROKEN, grid=True, sort=order),
            {name: look for name, look in LOOKS.items() if name in set(here.name)},
            [columns.NETWORK, ENGINE, *TELLS],
            len(panels),
        )
        height = 44 * here.network.nunique()
        panels.append(plot.points(70).labels().panel(f"batch {batch}", 300, height))
    return figure(
        run,
        "engines",
        panels or [charts.nothing(NOTHING)],
        [("Every engine", engine_table(run)), *_int8_table(layers)],
        fastest=_fastest(lines[lines.comparable & ~lines.masked]),
        zeros=no_gain(run),
        first=lines.to_dict("records")[0],
        layers=layers.to_dict("records"),
    )


def _fastest(lines: pd.DataFrame) -> list[dict]:
    """The line with the lowest latency for each batch size."""
    ordered = lines.sort_values("speedup", ascending=False, kind="stable")
    return ordered.drop_duplicates("batch_size").sort_values("batch_size").to_dict("records")


def engine_table(run: Run) -> Table:
    """A table of every network in every engine: latency, accuracy, and agreement with torch."""
    keys = list(tables.KEYS[:3])
    whole = run.summary[run.summary.layer == ALL_LAYERS]
    executed = run.agreements.groupby([*keys, "engine"], as_index=False)
    executed = executed[["agreement", "test_accuracy"]].mean()
    # The summary's accuracies of networks that are no ONNX files are of float32 in torch.
    in_torch = tables.of_family(whole, *COURSE)[[*keys, "test_accuracy"]].drop_duplicates(keys)
    known = pd.concat([in_torch.assign(engine=TORCH), executed])
    lines = engine_lines(run).merge(known, "left", [*keys, "engine"])
    lines = lines.sort_values("batch_size", kind="stable")
    accuracy = Column("test accuracy, %", "test_accuracy", columns.percent_number)
    agreement = Column("top-1 agreement with torch, %", "agreement", columns.percent_number)
    told = [columns.NETWORK, ENGINE, accuracy, agreement, *columns.TIMED]
    return columns.table(lines, told, left=2)


def int8_layers(run: Run) -> pd.DataFrame:
    """The layers of the baseline's int8 file, the noisiest first: layer, decibels (mean over seeds
    of its signal-to-noise ratio; NaN if nothing is lost), error (its output's, as a share of the
    output), float32 (in how many seeds it stays in float32) and seeds. Empty without such a file.
    """
    method = methods.exported_name("baseline", "int8")
    lines = run.int8_layers[run.int8_layers.method == method]
    found = (
        lines.assign(float32=lines.float32 == "yes")
        .groupby("layer", sort=False, as_index=False)
        .agg(decibels=("decibels", "mean"), float32=("float32", "sum"), seeds=("float32", "size"))
    )
    found = found.assign(error=10 ** (-found.decibels / 20))
    return found.sort_values("decibels", kind="stable")


def _int8_table(layers: pd.DataFrame) -> list[tuple[str, Table]]:
    """The table of `int8_layers`; none without layers."""
    told = [
        Column("layer", "layer"),
        Column("error of its output alone", "error", lambda share: f"{100 * share:.2g} %"),
        Column("signal to noise, dB", "decibels", tables.decimal),
        Column("kept in float32, seeds", ("float32", "seeds"), "{} of {}".format),
    ]
    title = "What int8 costs each layer of the baseline"
    return [(title, columns.table(layers, told))] if len(layers) else []


def no_gain(run: Run) -> dict | None:
    """The speed that zeros alone bring: the sparsity of the masked network, and its latency as a
    multiple of the baseline's, both as float32 files, smallest and largest over batch sizes. None
    if not both were timed.
    """
    files = of_family(run.timed, methods.ONNX)
    files = files[(files.weight_bits == 32) & files.latency_ms.notna()]
    dense = files[files.method == methods.exported_name("baseline", "float32")]
    pairs = files[files.masked].merge(dense, on=["device", "batch_size"], suffixes=("", "_dense"))
    if pairs.empty:
        return None
    ratios = pairs.latency_ms / pairs.latency_ms_dense
    return {"sparsity": pairs.target_sparsity.max(), "least": ratios.min(), "most": ratios.max()}


def structured(run: Run) -> Figure:
    """How much faster smaller networks are, against how many times fewer MACs they have."""
    timed = run.timed[run.timed.engine == TORCH].sort_values("batch_size", kind="stable")
    table = columns.table(timed, [columns.NETWORK, DEVICE, *columns.TIMED])
    lines = timed[timed.latency_ms.notna()]
    keys = list(tables.KEYS[:3])
    lines = lines.merge(run.pruned[[*keys, "reduction"]], on=keys)
    lines["name"] = [methods.METHODS[name].title for name in lines.method]
    lines = of_family(lines[lines.reduction.notna() & ~lines.masked], *COURSE)
    panels = []
    for (device, batch), here in lines.groupby(["device", "batch_size"]):
        plot = Plot(
            here,
            charts.times("reduction", lines.reduction, "× fewer MACs"),
            charts.times("speedup", lines.speedup, "× faster"),
            charts.looks(here.method),
            [columns.NETWORK, Column("× fewer MACs", "reduction", tables.factor), *TELLS],
            len(panels),
        )
        panels.append(plot.points(75).panel(f"batch {batch} on {device.upper()}", 300, 260))
    small = of_family(lines[lines.comparable], methods.STRUCTURED)
    best = small.sort_values("speedup", ascending=False, kind="stable")
    best = best.drop_duplicates(["device", "batch_size"])
    return figure(
        run,
        "structured",
        panels or [charts.nothing(NOTHING)],
        [("Latencies", table)],
        best=best.sort_values(["device", "batch_size"]).to_dict("records"),
    )


FORMAT_COLUMNS = (
    Column("network", ("network", "image_shape"), "{} {}".format),
    DEVICE,
    Column("format", "dtype"),
    Column("batch", "batch_size", lambda size: str(size) if size else ""),
    columns.FILE,
    Column("test accuracy, %", "accuracy", columns.percent_number),
    Column("agreement with float32, %", "agreement", columns.percent_number),
    Column("of images", "agreement_images", tables.count),
    columns.LATENCY,
    columns.IQR,
    Column("× faster than float32", "speedup", tables.factor),
    columns.THROUGHPUT,
    columns.REPETITIONS,
    Column("peak memory", "peak_memory_bytes", tables.size),
    columns.NOTE,
)


def against_float32(formats: pd.DataFrame) -> pd.Series:
    """How many times faster than float32 each number format is, in the same network, device and
    batch; NaN if either is not known. formats: of `Run.timed_formats`.
    """
    keys = ["network", "device", "batch_size"]
    float32 = formats[formats.dtype == "float32"].drop_duplicates(keys).set_index(keys).latency_ms
    return formats.join(float32.rename("float32_ms"), on=keys).float32_ms / formats.latency_ms


def formats(run: Run) -> Figure:
    """Speed by number format, with a panel for each network and device."""
    table, panels = run.timed_formats, []
    table = table.assign(
        speedup=against_float32(table), throughput=1000 * table.batch_size / table.latency_ms
    )
    lines = table[table.latency_ms.notna()]
    drawn = lines[lines.speedup.notna()]
    for title, here in drawn.groupby(["network", "image_shape", "device"], sort=False):
        *network, device = title
        title = f"{' '.join(network)} on {device.upper()}"
        panels.append(_formats(title, here, len(panels)))
    alone = table[table.latency_ms.isna()].note
    fastest = lines.sort_values(["batch_size", "latency_ms"], kind="stable")
    fastest = fastest.drop_duplicates(["network", "device"]).sort_index()
    fastest = fastest[is_ranked(fastest)]  # a slower one is not the fastest, though it is steadier
    return figure(
        run,
        "formats",
        panels or [charts.nothing(NOTHING)],
        [("Every format", columns.table(table, FORMAT_COLUMNS, left=3))],
        fastest=fastest.to_dict("records"),
        missing=len(alone),
        reasons=[*dict.fromkeys(str(note).split(";")[0] for note in alone if note)],
    )


def _formats(title: str, lines: pd.DataFrame, number: int) -> Panel:
    lines = lines.sort_values("batch_size", kind="stable").assign(
        name="batch " + lines.batch_size.astype(int).astype(str),
        label=lines.speedup.map(tables.factor),
    )
    found = list(dict.fromkeys(lines.name))
    looks = {name: Look(COLOURS[index % len(COLOURS)]) for index, name in enumerate(found)}
    plot = Plot(
        lines,
        charts.logarithmic("speedup", lines.speedup, "× faster than float32", " ×", (1.3, 3)),
        charts.names("dtype", charts.BROKEN, grid=True, sort=list(dict.fromkeys(lines.dtype))),
        looks,
        [Column("", "dtype"), Column("batch", "batch_size"), *TELLS[:2]],
        number,
    )
    return plot.apart().points(80).labels().panel(title, 300, 44 * max(2, lines.dtype.nunique()))
