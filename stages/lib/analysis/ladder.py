"""The ladder of sizes: what a network takes in every form that it can be stored in."""

import pandas as pd

from stages.lib.analysis import tables
from stages.lib.core import methods
from stages.lib.core.records import ALL_LAYERS

FILE, ESTIMATE = "file", "estimate"
COLUMNS = ("name", "bytes", "kind", "note")
# The forms of a masked network in which its zeros save bytes, by the columns of records.FILE_SIZE.
FORMS = {
    "nonzero_bytes": ("float32, nonzeros alone", ESTIMATE),
    "index_value_bytes": ("float32, nonzeros with their places", ESTIMATE),
    "entropy_bytes": ("float32, entropy bound", ESTIMATE),
    "zip_bytes": ("float32, zipped", FILE),
}


def rungs(
    summary: pd.DataFrame, sizes: pd.DataFrame, formats: pd.DataFrame, max_drop: float
) -> pd.DataFrame:
    """The forms of the network, largest first: name, bytes, kind (FILE if measured, ESTIMATE if
    calculated) and note.

    summary: of `tables.summary`.
    sizes: records.FILE_SIZE, means over seeds are shown.
    formats: records.FORMAT.
    max_drop: of every kind of network, the smallest within this loss of validation accuracy is
        shown, and of the masked ones the sparsest.
    """
    keys = list(tables.KEYS)
    means = sizes.groupby(keys, as_index=False)[[*FORMS, "file_bytes"]].mean()
    whole = summary[summary.layer == ALL_LAYERS].merge(means, "left", keys)
    whole = whole.assign(
        family=[methods.METHODS[method].family for method in whole.method],
        words=[tables.network(*network) for network in
               whole[["method", "weight_bits", "target_sparsity", "times_smaller"]].values],
        note=(100 * whole.test_accuracy).map("{:.1f} % on test".format),
    )  # fmt: skip
    baseline = whole[whole.method == "baseline"].iloc[0]
    least = baseline.validation_accuracy - max_drop - 1e-9
    good = whole[(whole.validation_accuracy >= least) & whole.file_bytes.notna()]
    casts = formats[(formats.network == "baseline") & (formats.dtype != "float32")]
    found = [
        ("float32, baseline", baseline.bytes_on_disk, FILE, "the trained network"),
        *((f"{dtype}, baseline", size, FILE, "every number cast")
          for dtype, size in casts.groupby("dtype", sort=False).bytes_on_disk.first().items()),
    ]  # fmt: skip
    for family, kinds in (
        (methods.INTEGER, ["weight_bits"]), (methods.STRUCTURED, ["family"]),
        (methods.PACKED, ["method"]),
    ):  # fmt: skip
        for _, lines in good[good.family == family].groupby(kinds, sort=False):
            line = lines.loc[lines.file_bytes.idxmin()]
            found.append((line.words, line.file_bytes, FILE, line.note))
    masked = good[good.family == methods.UNSTRUCTURED]
    if len(masked):
        line = masked.loc[masked.nonzero_bytes.idxmin()]
        note = f"{line.words}, {line.note}"
        found += [(name, line[column], kind, note) for column, (name, kind) in FORMS.items()]
    table = pd.DataFrame(found, columns=list(COLUMNS))
    return table.sort_values("bytes", ascending=False, kind="stable", ignore_index=True)
