"""The claims about the error of linear quantization, stated before anything is measured."""

import pandas as pd

from stages.lib.analysis.evidence import Evidence
from stages.lib.analysis.verdicts import (
    CONTRADICTED,
    NOT_MEASURED,
    REPRODUCED,
    UNDECIDED,
    Finding,
    Hypothesis,
)

PUBLISHED = {8: 1.02e-5, 16: 1.57e-10}
# The error grows with the square of the weights' range: a layer with three times the range has ten
# times the error, and another network may well have such a layer.
MOST_OFF = 10
# The ratio of the course's two errors is 64,968; S²/12 with 255 and 65,535 steps gives 66,049.
RATIO_TOLERANCE = 0.1


def _text(error: float) -> str:
    return f"{error:.2e}".replace("e-0", "e-")


def _published(bits: int) -> Hypothesis:
    return Hypothesis(
        f"quantization_error_{bits}bit",
        f"Quantizing a layer linearly to {bits} bits has a mean squared error of"
        f" {_text(PUBLISHED[bits])}",
        _text(PUBLISHED[bits]),
        f"Per tensor, all schemes and seeds. Reproduced if the published error lies among those of"
        f" the layers, contradicted if it is more than {MOST_OFF} times away from the nearest; else"
        " undecided.",
    )


LAW = Hypothesis(
    "quantization_error_law",
    "The error of linear quantization is S²/12, at 8 and at 16 bits",
    "the two published errors have about the ratio that S²/12 implies",
    "Per tensor, the error of each layer as a multiple of S²/12. Reproduced if at both widths that"
    f" of the middle half of the layers is within {100 * RATIO_TOLERANCE:g} % of 1, contradicted if"
    " at one it lies wholly outside; else undecided.",
)


def _layers(evidence: Evidence, bits: int) -> pd.DataFrame:
    """The layers quantized as in the course, with one scale each."""
    table = evidence.layers
    return table[(table.granularity == "tensor") & (table.bits == bits)].dropna(
        subset=["mse", "theory", "ratio"]
    )


def published_error(evidence: Evidence, bits: int) -> Finding:
    """Judges the claim that a layer's error is the published one."""
    hypothesis, published = _published(bits), PUBLISHED[bits]
    layers = _layers(evidence, bits)
    errors = layers.mse
    if errors.empty:
        return hypothesis.found(NOT_MEASURED, f"no layer was quantized per tensor to {bits} bits")
    least, most = float(errors.min()), float(errors.max())
    if least <= published <= most:
        verdict, why = REPRODUCED, "among the layers' errors"
    else:
        below = published < least
        off = least / published if below else published / max(most, 1e-300)
        verdict = CONTRADICTED if off > MOST_OFF else UNDECIDED
        why = f"{'below' if below else 'above'} every layer's error, by a factor of {off:.2g}"
    here = (
        f"{_text(least)} to {_text(most)} over {layers.layer.nunique()} layers, median"
        f" {_text(errors.median())}",
        "the error is that of the layer's range of weights: compare the order of magnitude",
    )
    numbers = {
        "bits": bits, "published": published, "least": least, "median": float(errors.median()),
        "most": most, "measured": len(errors),
    }  # fmt: skip
    return hypothesis.found(verdict, why, here, (numbers,))


def law(evidence: Evidence) -> Finding:
    """Judges LAW."""
    here, numbers, inside, outside = [], [], [], []
    for bits in PUBLISHED:
        ratios = _layers(evidence, bits).ratio
        if ratios.empty:
            continue
        low, median, high = (float(value) for value in ratios.quantile([0.25, 0.5, 0.75]))
        bounds = (1 - RATIO_TOLERANCE, 1 + RATIO_TOLERANCE)
        inside.append(bounds[0] <= low and high <= bounds[1])
        outside.append(high < bounds[0] or low > bounds[1])
        here.append(f"{bits} bit: median {median:.3f} × S²/12, middle half {low:.3f} to {high:.3f}")
        numbers.append(
            {"bits": bits, "low": low, "median": median, "high": high, "measured": len(ratios)}
        )
    if not numbers:
        return LAW.found(NOT_MEASURED, "no layer was quantized per tensor to 8 or 16 bits")
    whole = len(numbers) == len(PUBLISHED) and all(inside)
    verdict = CONTRADICTED if any(outside) else REPRODUCED if whole else UNDECIDED
    why = " and ".join(f"{one['median']:.3f} × S²/12 at {one['bits']} bits" for one in numbers)
    if len(numbers) < len(PUBLISHED):
        why += "; the other width was not measured"
    return LAW.found(verdict, why, tuple(here), tuple(numbers))
