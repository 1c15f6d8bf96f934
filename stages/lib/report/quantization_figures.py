"""Figures of quantized weights: accuracy and error by bit width."""

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.analysis.tables import Table, of_family
from stages.lib.core import methods
from stages.lib.report import charts, columns
from stages.lib.report.charts import Plot
from stages.lib.report.columns import Column
from stages.lib.report.figure import Figure, figure
from stages.lib.report.run import Run

# The bit widths that the words name.
TOLD = (2, 3, 4, 8, 16)
# The bit widths for which each layer is shown.
DETAILED = (8, 16)
BITS = Column("bits", "bits", tables.count)


def mean_errors(layers: pd.DataFrame) -> pd.DataFrame:
    """Mean squared errors: method, name, bits, mse, theory and ratio, means over layers and seeds.
    Errors of 0 (nothing to quantize) are left out.
    """
    known = layers[(layers.mse > 0) & (layers.theory > 0)]
    known = known.assign(method=known.scheme + "_" + known.granularity)
    found = known.groupby(["method", "bits"], as_index=False, sort=False)[["mse", "theory"]].mean()
    names = [methods.METHODS[name].title for name in found.method]
    return found.assign(name=names, ratio=found.mse / found.theory)


def bits(run: Run) -> Figure | None:
    """Test accuracy of the network by the bit width of its weights."""
    lines = of_family(run.summary, methods.INTEGER).rename(columns={"weight_bits": "bits"})
    if lines.empty:
        return None
    accuracies = [*lines.low, *lines.high, run.baseline.test_accuracy]
    plot = Plot(
        lines,
        charts.whole("bits", lines.bits, "bits per weight", 0.5),
        charts.shares("test_accuracy", "test accuracy", charts.around(accuracies)),
        charts.looks(lines.method),
        [columns.NAME, Column("bits per weight", "bits"), columns.ESTIMATE],
    )
    plot.level(run.baseline.test_accuracy).bars().lines().points()
    best = lines.sort_values("test_accuracy").drop_duplicates("bits", keep="last")
    return figure(
        run,
        "bits",
        [plot.panel(height=280)],
        [("Accuracy by width, error as a multiple of S²/12", _widths(run, lines))],
        best=best[best.bits.isin(TOLD)].sort_values("bits").to_dict("records"),
    )


def _widths(run: Run, lines: pd.DataFrame) -> Table:
    """A table with a row for each width: accuracy and, in brackets, the ratio of error to
    theory.
    """
    errors = mean_errors(run.layers)[["method", "bits", "ratio"]]
    told = lines.merge(errors, "left", ["method", "bits"])
    told["text"] = [
        f"{tables.spread(line.test_accuracy, line.test_accuracy_std)} ({line.ratio:.2f})"
        for line in told.itertuples()
    ]
    return columns.wide(told.sort_values("bits", kind="stable"), "bits", "name", "text", (str, str))


def error(run: Run) -> Figure | None:
    """The mean squared error of the weights by bit width, compared with S²/12."""
    mean = mean_errors(run.layers)
    if mean.empty:
        return None
    errors = [
        Column("mean squared error", "mse", "{:.3g}".format),
        Column("S²/12", "theory", "{:.3g}".format),
        Column("ratio", "ratio", "{:.3f}".format),
    ]
    both = pd.concat([mean.mse, mean.theory])
    plot = Plot(
        mean,
        charts.whole("bits", mean.bits, "bits per weight", 0.5),
        charts.logarithmic("mse", both, "mean squared error of a weight", room=(1.5, 1.5)),
        charts.looks(mean.method),
        [columns.NAME, Column("bits per weight", "bits"), *errors],
    )
    plot.lines("theory").points()
    wide = mean[mean.bits >= 8].ratio
    return figure(
        run,
        "error",
        [plot.panel(height=280)],
        [
            ("Error by width", columns.table(mean, [Column("setting", "name"), BITS, *errors])),
            *_by_layer(run.layers, errors),
        ],
        least=mean.ratio.min(),
        most=mean.ratio.max(),
        wide=[wide.min(), wide.max()] if len(wide) else None,
    )


def _by_layer(layers: pd.DataFrame, errors: list[Column]) -> list[tuple[str, Table]]:
    """Tables of S, Z and the error of each layer, for the first scheme and seed. Empty if nothing
    was quantized per tensor to these widths.
    """
    scheme, seed = layers.scheme.iloc[0], layers.seed.iloc[0]
    first = layers[(layers.seed == seed) & (layers.scheme == scheme)]
    chosen = first[(first.granularity == "tensor") & first.bits.isin(DETAILED)]
    if chosen.empty:
        return []
    told = [
        Column("layer", "layer"),
        BITS,
        Column("S", "scale_most", "{:.4g}".format),
        Column("Z", "zero_point_most", lambda zero: tables.decimal(zero, 0)),
        *errors,
    ]
    return [(f"Layer by layer ({scheme}, per tensor, seed {seed})", columns.table(chosen, told))]
