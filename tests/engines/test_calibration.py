"""Ranges of activations: against the values themselves, and against a search by hand."""

import numpy as np
import pytest
from hypothesis import given
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


value_lists = st.lists(
    st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=200
)


@given(values=value_lists)
@few_examples
def test_a_histogram_counts_every_value_once(values):
    assert observed(values).counts.sum() == len(values)


def test_a_histogram_is_numpys_but_for_values_on_an_edge():
    values = normal()
    bound = float(np.abs(values).max())
    wanted, _ = np.histogram(values, 2 * BINS, (-bound, bound))
    assert np.abs(calibration.histogram(values, bound) - wanted).sum() < 50


def test_zeros_alone_have_a_histogram_and_ranges():
    seen = observed(np.zeros(7))
    assert seen.counts[BINS] == 7
    assert calibration.minmax(seen) == (0, 0)
    assert calibration.percentile(seen, 0.9) == (0, 0)
    assert calibration.entropy(seen) == (0, 0)


@given(values=value_lists, share=st.floats(0.5, 1))
@few_examples
def test_every_range_lies_within_the_values_seen(values, share):
    seen = observed(values)
    for low, high in (calibration.percentile(seen, share), calibration.entropy(seen)):
        assert seen.low <= low <= high <= seen.high or low == pytest.approx(high)


@pytest.mark.parametrize("share", [0.9, 0.99, 0.9999])
def test_percentile_keeps_that_share_within_a_bin(share):
    values = normal()
    seen = observed(values)
    low, high = calibration.percentile(seen, share)
    width, cut = seen.bound / BINS, (1 - share) / 2
    assert (values < low).mean() <= cut + 1e-9 < (values < low + 1.01 * width).mean() + 1e-5
    assert (values > high).mean() <= cut + 1e-9 < (values > high - 1.01 * width).mean() + 1e-5


def test_all_values_are_the_hundredth_percentile():
    seen = observed(normal(1000))
    assert calibration.percentile(seen, 1.0) == calibration.minmax(seen)


def test_an_outlier_moves_the_largest_value_and_no_percentile():
    values = np.append(normal(), np.float32(6))
    assert calibration.minmax(observed(values))[1] == 6
    assert calibration.percentile(observed(values), 0.999)[1] < 4


def test_entropy_cuts_off_a_far_outlier_and_keeps_the_bulk():
    values = np.append(np.abs(normal()), np.float32(40))
    low, high = calibration.entropy(observed(values))
    assert low == pytest.approx(0, abs=1e-4)
    assert 3 < high < 30


def test_entropy_keeps_an_even_spread_whole():
    values = np.random.default_rng(0).uniform(0, 1, 200_000).astype(np.float32)
    assert calibration.entropy(observed(values))[1] > 0.95


def test_zeros_of_a_relu_do_not_decide_the_range():
    values = np.maximum(normal(), 0)
    few = calibration.entropy(observed(values))
    many = calibration.entropy(observed(np.append(values, np.zeros(10**6, np.float32))))
    assert few == many


def test_the_divergence_is_that_of_the_definition():
    counts = np.random.default_rng(1).integers(0, 9, 2 * calibration.LEVELS)
    p = counts.astype(float)
    p[-1] += 5
    q = np.zeros_like(p)
    for start in range(0, len(counts), 2):
        pair = counts[start : start + 2]
        q[start : start + 2] = (pair > 0) * pair.sum() / max(1, (pair > 0).sum())
    p, q = p / p.sum(), np.maximum(q / q.sum(), 1e-12)
    wanted = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a)
    assert calibration._divergence(counts, 5) == pytest.approx(wanted)
