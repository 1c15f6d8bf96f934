"""The ladder of sizes: what the same network takes in every form that it can be stored in."""

import math

import pandas as pd

from stages.lib.analysis import tables

FILE, ESTIMATE = "file", "estimate"
COLUMNS = ("name", "bytes", "kind", "note")


def _files(whole: pd.DataFrame, formats: pd.DataFrame) -> list[tuple]:
    """The dense network, cast and quantized."""
    dense = whole[whole.method == "baseline"].iloc[0]
    found = [("float32, dense", dense.bytes_on_disk, FILE, "the trained network")]
    cast = formats[(formats.network == "baseline") & (formats.dtype != "float32")]
    for dtype, size in cast.groupby("dtype", sort=False).bytes_on_disk.first().items():
        found.append((f"{dtype}, dense", size, FILE, "every number cast"))
    integers = whole[whole.weight_bits < 32]
    for bits in sorted({8, 16} & set(integers.weight_bits), reverse=True):
        lines = integers[integers.weight_bits == bits].sort_values(
            ["bytes_on_disk", "validation_accuracy"], ascending=[True, False], kind="stable"
        )
        line = lines.iloc[0]
        note = f"{line.method.replace('_', ' per ')}, {100 * line.test_accuracy:.1f} % on test"
        found.append((f"int{bits}, dense", line.bytes_on_disk, FILE, note))
    return found


def _structured(whole: pd.DataFrame, least: float) -> list[tuple]:
    """The smallest network whose filters are gone, within the loss."""
    lines = whole[whole.method.str.startswith("structured") & (whole.validation_accuracy >= least)]
    if lines.empty:
        return []
    line = lines.sort_values("bytes_on_disk", kind="stable").iloc[0]
    name = f"float32, filters cut by {tables.percent(line.target_sparsity)}"
    note = f"{tables.METHODS[line.method]}, {100 * line.test_accuracy:.1f} % on test"
    return [(name, line.bytes_on_disk, FILE, note)]


def _packed(everything: pd.DataFrame, least: float) -> list[tuple]:
    """The smallest packed file of each kind within the loss."""
    whole = everything[everything.method.isin(tables.PACKED)]
    found = []
    for method, name in tables.PACKED.items():
        good = whole[(whole.method == method) & (whole.validation_accuracy >= least)]
        if len(good):
            line = good.sort_values("bytes_on_disk", kind="stable").iloc[0]
            note = f"entropy-coded, {100 * line.test_accuracy:.1f} % on test"
            kind = name.removesuffix(" and packed")
            found.append((f"packed, {kind}", line.bytes_on_disk, FILE, note))
    return found


def _nonzeros(whole: pd.DataFrame, least: float) -> list[tuple]:
    """What the nonzero numbers of the sparsest network within the loss would take, by
    calculation: a bit for each number says whether it is there.
    """
    masked = whole[(whole.weight_bits == 32) & (whole.target_sparsity > 0)]
    masked = masked[~masked.method.str.startswith("structured")]
    good = masked[masked.validation_accuracy >= least]
    if good.empty:
        return []
    line = good.sort_values(
        ["nonzero_parameters", "validation_accuracy"], ascending=[True, False]
    ).iloc[0]
    count, bitmap = line.nonzero_parameters, math.ceil(line.parameters / 8)
    whose = f"{tables.network(line.method, 32, line.target_sparsity)},"
    whose += f" {100 * line.test_accuracy:.1f} % on test"
    return [
        ("float32, nonzeros + bitmap", 4 * count + bitmap, ESTIMATE, whose),
        ("float32, nonzeros alone", 4 * count, ESTIMATE, f"{whose}; without their places"),
        ("8 bits, nonzeros + bitmap", count + bitmap, ESTIMATE, f"{whose}; if 8 bits suffice"),
    ]


def rungs(summary: pd.DataFrame, formats: pd.DataFrame, max_drop: float) -> pd.DataFrame:
    """Forms of the network, largest first: name, bytes, kind (FILE as measured, ESTIMATE as
    calculated) and note.

    summary: `tables.summary`, files to deploy among them or not; formats: the bench of number
    formats. Pruned networks are those that lose no more than `max_drop` of the dense network's
    validation accuracy.
    """
    others = summary.method.isin([*tables.PACKED, *tables.DEPLOYED])
    whole = summary[(summary.layer == "all") & ~others]
    least = whole[whole.method == "baseline"].validation_accuracy.iloc[0] - max_drop
    found = _files(whole, formats) + _structured(whole, least) + _nonzeros(whole, least)
    found += _packed(summary, least)
    table = pd.DataFrame(found, columns=list(COLUMNS))
    return table.sort_values("bytes", ascending=False, kind="stable", ignore_index=True)
