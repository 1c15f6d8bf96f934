"""The claims about the error of linear quantization, stated before anything is measured."""

from dataclasses import replace

import pandas as pd

from stages.lib.analysis.evidence import Evidence
from stages.lib.analysis.verdicts import CONTRADICTED, REPRODUCED, UNDECIDED, Finding, weigh

PUBLISHED = {8: 1.02e-5, 16: 1.57e-10}
# The error grows with the square of the weights' range: a layer with three times the range has ten
# times the error, and another network may well have such a layer.
MOST_OFF = 10
# The ratio of the course's two errors is 64,968; S²/12 with 255 and 65,535 steps gives 66,049.
RATIO_TOLERANCE = 0.1

LAW = Finding(
    "quantization_error_law",
    "The error of linear quantization is S²/12, at 8 and at 16 bits",
    "the two published errors have about the ratio that S²/12 implies",
    "Per tensor, the error of each layer as a multiple of S²/12. Reproduced if at both widths that"
    f" of the middle half of the layers is within {100 * RATIO_TOLERANCE:g} % of 1, contradicted if"
    " at one it lies wholly outside; else undecided.",
)


def _text(error: float) -> str:
    return f"{error:.2e}".replace("e-0", "e-")


def _layers(evidence: Evidence, bits: int) -> pd.DataFrame:
    """The layers quantized as in the course, with one scale each."""
    table = evidence.layers
    return table[(table.granularity == "tensor") & (table.bits == bits)].dropna(
        subset=["mse", "theory", "ratio"]
    )


def published_error(evidence: Evidence, bits: int) -> Finding:
    """Judges the claim that a layer's error is the published one."""
    published, layers = PUBLISHED[bits], _layers(evidence, bits)
    hypothesis = Finding(
        f"quantization_error_{bits}bit",
        f"Quantizing a layer linearly to {bits} bits has a mean squared error of"
        f" {_text(published)}",
        _text(published),
        f"Per tensor, all schemes and seeds. Reproduced if the published error lies among those of"
        f" the layers, contradicted if it is more than {MOST_OFF} times away from the nearest; else"
        " undecided.",
    )
    if layers.empty:
        return replace(hypothesis, why=f"no layer was quantized per tensor to {bits} bits")
    least, median, most = (float(value) for value in layers.mse.quantile([0, 0.5, 1]))
    verdict, why = REPRODUCED, "among the layers' errors"
    if not least <= published <= most:
        below = published < least
        off = least / published if below else published / max(most, 1e-300)
        verdict = CONTRADICTED if off > MOST_OFF else UNDECIDED
        why = f"{'below' if below else 'above'} every layer's error, by a factor of {off:.2g}"
    numbers = {
        "bits": bits, "published": published, "least": least, "median": median, "most": most,
        "measured": len(layers),
    }  # fmt: skip
    told = (
        f"{_text(least)} to {_text(most)} over {layers.layer.nunique()} layers, median"
        f" {_text(median)}",
    )
    return replace(hypothesis, verdict=verdict, why=why, here=told, evidence=(numbers,))


def law(evidence: Evidence) -> Finding:
    """Judges LAW."""
    layers = pd.concat([_layers(evidence, bits) for bits in PUBLISHED])
    if layers.empty:
        return replace(LAW, why="no layer was quantized per tensor to 8 or 16 bits")
    table = layers.groupby("bits").ratio.describe()[["25%", "50%", "75%", "count"]]
    table.columns = ["low", "median", "high", "measured"]
    least, most = 1 - RATIO_TOLERANCE, 1 + RATIO_TOLERANCE
    inside = (table.low >= least) & (table.high <= most)
    outside = (table.high < least) | (table.low > most)
    verdict = weigh(inside.all() and len(table) == len(PUBLISHED), outside.any())
    why = "; ".join(
        f"{line.Index} bits: median {line.median:.3f} × S²/12, middle half {line.low:.3f} to"
        f" {line.high:.3f}"
        for line in table.itertuples()
    )
    numbers = table.astype({"measured": int}).reset_index().to_dict("records")
    return replace(LAW, verdict=verdict, why=why, evidence=tuple(numbers))
