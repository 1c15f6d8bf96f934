"""Closed forms against known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.compression import entropy
from tests import toys

integers = st.lists(st.integers(-40, 40), max_size=60).map(lambda found: np.array(found, np.int16))


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
def test_entropy_of_known_histograms(values, bits):
    assert entropy.of_values(np.array(values, np.int16)) == pytest.approx(bits, abs=1e-12)
    assert entropy.bound_bits(np.array(values, np.int16)) == pytest.approx(bits * len(values))


def test_entropy_of_a_biased_coin():
    values = np.zeros((100, 100), np.int8)
    values.flat[:800] = 1
    expected = -0.08 * math.log2(0.08) - 0.92 * math.log2(0.92)
    assert entropy.of_values(values) == pytest.approx(expected)


@given(integers)
@toys.few_examples
def test_entropy_lies_between_none_and_the_number_of_values(values):
    found = entropy.of_values(values)
    assert 0 <= found <= math.log2(max(len(np.unique(values)), 1)) + 1e-9
    assert found == pytest.approx(entropy.of_values(-values[::-1]), abs=1e-9)


@given(integers)
@toys.few_examples
def test_a_histogram_counts_every_value(values):
    least, counts = entropy.histogram(values)
    assert counts.sum() == len(values)
    for value in set(values.tolist()):
        assert counts[value - least] == (values == value).sum()


def test_a_histogram_is_counted_in_pieces(monkeypatch):
    values = np.random.default_rng(0).integers(-128, 128, 1000).astype(np.int8)
    whole = entropy.histogram(values)
    monkeypatch.setattr(entropy, "PIECE", 7)
    assert (entropy.histogram(values.reshape(10, 100)).counts == whole.counts).all()


def test_what_nonzeros_and_their_places_take():
    values = np.array([0, 3, 0, 0, -1, 0, 0, 0, 0], np.int8)
    assert entropy.nonzero_bits(values, 4) == 8
    assert entropy.index_value_bits(values, 4) == 2 * (4 + 4)
    assert entropy.index_value_bits(values[:8], 4) == 2 * (4 + 3)
    assert entropy.index_value_bits(np.zeros(0, np.int8), 4) == 0
    assert entropy.index_value_bits(np.ones(1, np.int8), 4) == 4
