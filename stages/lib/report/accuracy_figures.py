"""Figures of accuracy: against sparsity, before and after training, layer by layer, by epoch."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from stages.lib.analysis import tables
from stages.lib.analysis.tables import Table
from stages.lib.core import methods
from stages.lib.report import charts, columns, words
from stages.lib.report.charts import Look, Panel, Plot
from stages.lib.report.columns import Column
from stages.lib.report.figure import Figure, figure
from stages.lib.report.run import Run

# The close-up reaches this far below the baseline.
CLOSE_UP = 0.1
# With more layers than this, the rows of the map are narrower.
MANY_LAYERS = 24
REMOVED = Column("weights removed", "removed", columns.sparsity)
EPOCH = Column("epoch", "epoch", tables.count)
NONZERO = Column("nonzero parameters", "nonzero_parameters", tables.count)
COMPRESSION = Column("compression", "compression", tables.factor)
REDUCTION = Column("reduction", "reduction", tables.factor)


def is_trained(lines: pd.DataFrame) -> list[bool]:
    """Whether the method of each line trains after pruning."""
    return [methods.METHODS[name].trained for name in lines.method]


def of_pruned(lines: pd.DataFrame) -> list[bool]:
    """Whether the method of each line prunes."""
    return [methods.METHODS[name].family != methods.DENSE for name in lines.method]


def close_up_range(lines: pd.DataFrame, baseline: float) -> list[float]:
    """The accuracies from CLOSE_UP below the baseline's to a little above the best."""
    return [max(0.0, baseline - CLOSE_UP), max(baseline, lines.high.max()) + 0.005]


def _by_sparsity(
    run: Run, title: str, lines: pd.DataFrame, domain: Sequence[float], number: int
) -> Panel:
    """Test accuracy against target sparsity, of the methods with the best accuracies. lines: of
    `Run.pruned`.
    """
    baseline = run.baseline
    lines = charts.few(lines).sort_values("removed", kind="stable")
    plot = Plot(
        lines,
        charts.shares("removed", "weights removed", charts.around(lines.removed)),
        charts.shares("test_accuracy", "test accuracy", domain),
        charts.looks(lines.method),
        [columns.NAME, REMOVED, columns.ESTIMATE, columns.EPOCHS, NONZERO, columns.MACS, REDUCTION],
        number,
    )
    plot.level(baseline.test_accuracy, (baseline.low, baseline.high))
    return plot.bars().lines().points().panel(title, 420, 320)


def _methods(run: Run) -> Table:
    """A table of all float32 networks, the baseline first: accuracy, MACs and size."""
    lines = run.pruned
    top5 = [Column("top-5, %", "test_top5", columns.percent_number)]
    return columns.table(
        lines,
        [
            columns.NAME, columns.SPARSITY, columns.SPREAD, columns.CHANGE,
            *(top5 if lines.test_top5.notna().any() else []), NONZERO, COMPRESSION, columns.MACS,
            REDUCTION, columns.FILE, columns.EPOCHS,
        ],
    )  # fmt: skip


def accuracy(run: Run) -> Figure:
    pruned = run.pruned[of_pruned(run.pruned)]
    trained = pd.Series(is_trained(pruned), pruned.index, dtype=bool)
    here = (pruned.target_sparsity - run.sparsity).abs() < 1e-9
    here = pruned[here].sort_values("test_accuracy", kind="stable")
    baseline, close = run.baseline.test_accuracy, close_up_range(pruned, run.baseline.test_accuracy)
    parts = (
        ("as pruned", pruned[~trained], charts.around([*pruned.test_accuracy, baseline])),
        ("trained after pruning, close up", pruned[trained], close),
    )
    drawn = [part for part in parts if len(part[1])]
    recovered = recoveries(run)
    reached = headline(run)
    reached = reached[is_trained(reached)].dropna(subset="reached")
    return figure(
        run,
        "accuracy",
        [_by_sparsity(run, *one, number) for number, one in enumerate(drawn)]
        or [charts.nothing("Nothing was pruned.")],
        [
            ("Every method at one sparsity", headline_table(run)),
            ("Every method at every sparsity", _methods(run)),
            *([("Before and after fine-tuning", columns.table(recovered, RECOVERY))]
              if len(recovered) else []),
        ],
        pruned=here[~trained[here.index]].to_dict("records"),
        trained=here[trained[here.index]].to_dict("records"),
        reached=reached.sort_values("reached", ascending=False, kind="stable").to_dict("records"),
        left_out=sum(max(0, part[1].method.nunique() - charts.MOST_NAMES) for part in drawn),
        floor=close[0],
        below=int((pruned[trained].test_accuracy < close[0]).sum()),
    )  # fmt: skip


def headline(run: Run) -> pd.DataFrame:
    """A line for each method at one sparsity (0 for methods that do not prune). `reached`: the
    highest sparsity that loses little on validation; None for methods that do not prune.
    """
    found = []
    for name, lines in run.pruned.groupby("method", sort=False):
        dense = methods.METHODS[name].family == methods.DENSE
        if not dense and not (lines.target_sparsity > 0).any():
            continue
        here = lines[(lines.target_sparsity - (0 if dense else run.sparsity)).abs() < 1e-9]
        reached = None if dense else tables.sparsest(run.rows, name, run.max_drop)
        line = here.iloc[0].to_dict() if len(here) else {"name": lines["name"].iloc[0]}
        found.append({**line, "method": name, "reached": reached})
    return pd.DataFrame(found)


def headline_table(run: Run) -> Table:
    """The table of `headline`."""
    at = f"test accuracy, %, at {tables.percent(run.sparsity)} sparsity"
    reached = f"sparsest within {words.loss(run.max_drop)} on validation"
    return columns.table(
        headline(run),
        [
            columns.NAME, columns.SPREAD._replace(title=at), columns.CHANGE, columns.EPOCHS,
            Column(reached, "reached", lambda share: tables.percent(share) if share else "none"),
        ],
    )  # fmt: skip


def recoveries(run: Run) -> pd.DataFrame:
    """Fine-tuning, for each network measured before and after it: method (as pruned), name,
    removed, before and after (test accuracies), gain and epochs.
    """
    kept = ["method", "name", "removed", "before", "after", "gain", "epochs"]
    found = []
    for start, end in methods.recoveries():
        before, after = (run.pruned[run.pruned.method == one.name] for one in (start, end))
        both = before.merge(after, on="removed", suffixes=("", "_after"))
        accuracies = {"before": both.test_accuracy, "after": both.test_accuracy_after}
        both = both.assign(**accuracies, epochs=both.extra_epochs_after)
        found.append(both.assign(gain=both.after - both.before)[kept])
    return pd.concat(found, ignore_index=True).sort_values(["method", "removed"], kind="stable")


RECOVERY = (
    Column("pruned by", "name"),
    Column("sparsity", "removed", columns.sparsity),
    Column("before, %", "before", columns.percent_number),
    Column("after, %", "after", columns.percent_number),
    Column("gain, percentage points", "gain", tables.points),
    Column("epochs", "epochs", tables.count),
)


def _map(alone: pd.DataFrame) -> Panel:
    """A map of test accuracy by layer and sparsity, with numbers."""
    alone = alone.assign(
        removed=alone.target_sparsity.map(tables.percent),
        label=(100 * alone.test_accuracy).round().astype(int).astype(str),
    )
    tells = (
        Column("layer", "layer"),
        Column("removed from it", "removed"),
        Column("test accuracy", "test_accuracy", columns.accuracy),
    )
    shown = charts.with_texts(alone, ["layer", "removed", "test_accuracy", "label"], tells)
    order = list(dict.fromkeys(alone.sort_values("target_sparsity").removed))
    axis = alt.Axis(labelAngle=0, grid=False)
    title = "weights removed from this layer alone"
    base = alt.Chart(shown).encode(
        x=alt.X("removed:O", sort=order, title=title, axis=axis),
        y=charts.names("layer", charts.CUT).y,
        tooltip=charts.hover(tells),
    )
    legend = alt.Legend(
        title="test accuracy", labelExpr=charts.AS_PERCENT, values=[0, 0.5, 1],
        direction="horizontal", gradientLength=200,
    )  # fmt: skip
    colour = alt.Scale(scheme="viridis", domain=[0, 1])
    cells = base.mark_rect().encode(color=alt.Color("test_accuracy:Q", scale=colour, legend=legend))
    layers = alone.layer.nunique()
    row = 28 if layers <= MANY_LAYERS else 16
    ink = alt.condition("datum.test_accuracy > 0.44", alt.value("black"), alt.value("white"))
    text = base.mark_text(fontSize=min(12, row - 5)).encode(text="label:N", color=ink)
    chart = alt.layer(cells, text).properties(height=row * layers)
    return Panel("", chart.add_params(charts.NARROW), max(60 * len(order), 240))


def sensitivity(run: Run) -> Figure | None:
    alone = run.summary[run.summary.method == "layer_alone"]
    if alone.empty:
        return None
    point = min(set(alone.target_sparsity), key=lambda share: (abs(share - run.sparsity), share))
    here = alone[alone.target_sparsity == point].sort_values("test_accuracy", kind="stable")
    by_sparsity = columns.wide(
        alone, "layer", "target_sparsity", "test_accuracy",
        (tables.percent, columns.percent_number),
    )  # fmt: skip
    by_seed = columns.wide(
        run.best, "layer", "seed", "sparsity", ("seed {}".format, tables.percent)
    )
    return figure(
        run,
        "sensitivity",
        [_map(alone)],
        [
            ("Layer by sparsity, test accuracy in percent", by_sparsity),
            ("Best trade-off of each layer alone", by_seed),
        ],
        point=point,
        ordered=here.to_dict("records"),
    )


def learning(run: Run) -> Figure | None:
    """The baseline's training: a line for each seed and part."""
    if not run.is_trained:
        return None
    looks = {"training": Look("#0072B2"), "validation": Look("#D55E00", "square")}
    curves = run.curves.rename(
        columns={"train_accuracy": "training", "validation_accuracy": "validation"}
    )
    long = curves.melt(["seed", "epoch"], list(looks), "name", "accuracy")
    accuracy = [Column("accuracy", "accuracy", columns.accuracy)]
    mean = curves.groupby("epoch", as_index=False)[list(looks)].mean()
    plot = Plot(
        long,
        charts.whole("epoch", long.epoch, "epoch", 0.02 * long.epoch.max()),
        charts.shares("accuracy", "accuracy", charts.around(long.accuracy)),
        looks,
        [columns.NAME, EPOCH, Column("seed", "seed"), *accuracy],
        detail="seed",
    )
    shares = [Column(f"{name} accuracy, %", name, columns.percent_number) for name in looks]
    by_epoch = columns.table(mean, [EPOCH, *shares], left=0)
    return figure(
        run,
        "learning",
        [plot.lines().points(22).panel(height=220)],
        [("By epoch", by_epoch)],
        last=mean.to_dict("records")[-1],
    )
