"""Closed forms against known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.compression import entropy
from tests import toys


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        ([], 0),
        ([7], 0),
        ([-3, -3, -3], 0),
        ([0, 1], 1),
        ([5, -5, 5, -5], 1),
        ([0, 0, 0, 1], 2 - 0.75 * math.log2(3)),
        ([0, 0, 1, 2], 1.5),
        (range(256), 8),
    ],
)
def test_the_bound_of_known_histograms(values, bits):
    values = np.array(values, np.int16)
    assert entropy.bound_bits(values) == pytest.approx(bits * len(values), abs=1e-12)


@given(st.lists(st.integers(-40, 40), max_size=60))
@toys.few_examples
def test_it_lies_between_none_and_that_of_equally_frequent_values(values):
    values = np.array(values, np.int16)
    bound = entropy.bound_bits(values)
    assert 0 <= bound <= len(values) * math.log2(max(len(np.unique(values)), 1)) + 1e-9
    assert bound == pytest.approx(entropy.bound_bits(-values[::-1]), abs=1e-9)
    least, counts = entropy.histogram(values)
    assert counts.tolist() == [int((values == least + i).sum()) for i in range(len(counts))]
    assert counts.sum() == len(values)


def test_a_histogram_is_counted_in_pieces(monkeypatch):
    values = np.random.default_rng(0).integers(-128, 128, 1000).astype(np.int8)
    _, whole = entropy.histogram(values)
    monkeypatch.setattr(entropy, "PIECE", 7)
    assert (entropy.histogram(values.reshape(10, 100))[1] == whole).all()
