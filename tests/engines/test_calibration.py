"""Ranges of activations: against the values themselves, and against a search by hand."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.lib.engines import calibration
from stages.lib.engines.calibration import BINS, Observed
from tests.toys import few_examples


def observed(values):
    values = np.asarray(values, np.float32)
    bound = float(np.abs(values).max())
    counts = calibration.histogram(values, bound)
    return Observed(float(values.min()), float(values.max()), counts)


def normal(count=100_000, seed=0):
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


@given(
    values=st.lists(
        st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=200
    ),
    percent=st.floats(50, 100),
)
@example(values=[0.0] * 7, percent=90)
@few_examples
def test_every_value_is_counted_once_and_every_range_lies_within_them(values, percent):
    seen = observed(values)
    assert seen.counts.sum() == len(values)
    for name in ("minmax", "percentile", "entropy"):
        low, high = calibration.method(name, percent)(seen)
        assert seen.low <= low <= high <= seen.high or low == pytest.approx(high)
        if name == "minmax" or (name == "percentile" and percent == 100):
            assert (low, high) == (seen.low, seen.high)


@pytest.mark.parametrize("share", [0.9, 0.99, 0.9999])
def test_percentile_keeps_that_share_within_a_bin(share):
    values = normal()
    seen = observed(values)
    low, high = calibration.percentile(seen, share)
    width, cut = seen.bound / BINS, (1 - share) / 2
    assert (values < low).mean() <= cut + 1e-9 < (values < low + 1.01 * width).mean() + 1e-5
    assert (values > high).mean() <= cut + 1e-9 < (values > high - 1.01 * width).mean() + 1e-5


@pytest.mark.parametrize(
    ("name", "values", "least", "most"),
    [
        ("minmax", np.append(normal(), 6), 6, 6),
        ("percentile", np.append(normal(), 6), 2, 4),
        ("entropy", np.append(np.abs(normal()), 40), 3, 30),
        ("entropy", np.random.default_rng(0).uniform(0, 1, 200_000), 0.95, 1),
    ],
    ids=["all values", "all but an outlier", "the bulk", "an even spread"],
)
def test_a_method_keeps_what_it_says(name, values, least, most):
    assert least <= calibration.method(name, 99.9)(observed(values))[1] <= most


def test_zeros_of_a_relu_do_not_decide_the_range():
    values = np.maximum(normal(), 0)
    many = np.append(values, np.zeros(10**6, np.float32))
    assert calibration.entropy(observed(values)) == calibration.entropy(observed(many))
