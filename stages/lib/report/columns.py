"""Columns of tables and lines of tooltips: which fields of a row are shown, and how."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.analysis.tables import Table


class Column(NamedTuple):
    """A column of a table.

    title: for people.
    fields: one or several fields of a row.
    show: makes the text from their values. If the first value is missing, the cell is empty.
    """

    title: str
    fields: str | tuple[str, ...]
    show: Callable[..., str] = str

    def texts(self, lines: pd.DataFrame) -> list[str]:
        """The texts of all rows."""
        fields = [self.fields] if isinstance(self.fields, str) else list(self.fields)
        return [
            "" if pd.isna(values[0]) else self.show(*values)
            for values in zip(*(lines[field] for field in fields), strict=True)
        ]


def table(lines: pd.DataFrame, columns: Sequence[Column], left: int = 1) -> Table:
    """A table with a row for each line. left: the number of columns aligned left."""
    cells = [column.texts(lines) for column in columns]
    return Table([column.title for column in columns], list(zip(*cells, strict=True)), left)


def wide(
    lines: pd.DataFrame, rows: str, columns: str, values: str, show: Sequence[Callable[[Any], str]]
) -> Table:
    """A table with a row for each value of one field and a column for each value of another, in
    their order. show: makes the text of a column's name and of a cell; missing cells are empty.
    """
    found = lines.pivot(index=rows, columns=columns, values=values)
    found = found.loc[list(dict.fromkeys(lines[rows]))]
    name, cell = show
    body = [
        (str(row), *("" if pd.isna(value) else cell(value) for value in cells))
        for row, cells in zip(found.index, found.to_numpy(), strict=True)
    ]
    return Table((rows, *map(name, found.columns)), body)


def percent_number(share: float) -> str:
    """A share in percent, for a column with the unit in its title: 0.951 → 95.1."""
    return f"{100 * share:.1f}"


def accuracy(share: float) -> str:
    """An accuracy in percent: 0.951 → 95.1 %."""
    return f"{100 * share:.1f} %"


def sparsity(share: float) -> str:
    """A sparsity in percent, with up to two decimals."""
    return tables.percent(round(share, 4))


def speedup(value: float, comparable: bool) -> str:
    """The text of a speedup. comparable: whether both latencies are steady."""
    return tables.factor(value) if comparable else "not ranked"


# Columns of several tables and tooltips.
NAME = Column("method", "name")
NETWORK = Column("network", "network")
ESTIMATE = Column("test accuracy", ("test_accuracy", "low", "high"), tables.estimate)
SPREAD = Column("test accuracy, %", ("test_accuracy", "test_accuracy_std"), tables.spread)
CHANGE = Column("Δ, percentage points", "change", tables.points)
SPARSITY = Column("sparsity", "sparsity", sparsity)
FILE = Column("file", "bytes_on_disk", tables.size)
MACS = Column("MACs", "macs", tables.count)
EPOCHS = Column("extra epochs", "extra_epochs", tables.count)
BATCH = Column("batch", "batch_size", str)
LATENCY = Column("latency, ms", "latency_ms", tables.milliseconds)
IQR = Column("IQR, ms", "latency_iqr_ms", tables.milliseconds)
SPEEDUP = Column("× faster", ("speedup", "comparable"), speedup)
THROUGHPUT = Column("images/s", "throughput", tables.count)
REPETITIONS = Column("repetitions", "repetitions", tables.count)
NOTE = Column("note", "note")
# What tables of latencies have in common.
TIMED = (BATCH, LATENCY, IQR, SPEEDUP, THROUGHPUT, REPETITIONS, NOTE)
