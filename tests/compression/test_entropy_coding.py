"""Integers through the coder and back; a decoder written from the documentation alone."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.lib.compression import entropy_coding
from stages.lib.compression.entropy_coding import Table
from tests import toys

DTYPES = [np.int8, np.int16, np.uint16]


def laplace(count, scale, bits=8, seed=0):
    """Integers as quantized weights are: many small ones."""
    top = 2 ** (bits - 1) - 1
    noise = np.random.default_rng(seed).laplace(0, scale, count)
    return np.rint(noise).clip(-top, top).astype(np.int8 if bits <= 8 else np.int16)


@st.composite
def arrays(draw):
    """Of any length, range and skew, as one of the types."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    limits = np.iinfo(dtype)
    bounds = sorted(draw(st.tuples(*[st.integers(limits.min, limits.max)] * 2)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = random.integers(bounds[0], bounds[1] + 1, draw(st.integers(0, 300)))
    values[random.random(len(values)) < draw(st.sampled_from([0, 0.5, 0.95, 1]))] = bounds[0]
    return values.astype(dtype)


def there_and_back(found):
    tables = [entropy_coding.table_for(values) for values in found]
    data = entropy_coding.encode(found, tables)
    again = entropy_coding.decode(data, tables, [(len(one), one.dtype) for one in found])
    for values, other in zip(found, again, strict=True):
        assert other.dtype == values.dtype
        assert np.array_equal(other, values)
    return data, tables


@given(st.lists(arrays(), max_size=4))
@example([])
@example([np.zeros(0, np.int8)])
@example([np.array([-128, 127], np.int8), np.zeros(0, np.int16), np.array([0], np.int8)])
@example([np.arange(2**16).astype(np.uint16)])
@example([np.array([-(2**15), 2**15 - 1], np.int16)])
@toys.few_examples
def test_what_is_decoded_is_what_was_encoded(found):
    there_and_back(found)


def test_arrays_of_one_value_add_nothing():
    data, _ = there_and_back([np.full(10**6, -5, np.int8), np.zeros(3, np.int16)])
    assert data == b"\0\0\0\1"


def test_pieces_do_not_show(monkeypatch):
    found = [laplace(1000, 2.0), laplace(1000, 3000.0, bits=16)]
    whole = there_and_back(found)[0]
    monkeypatch.setattr(entropy_coding, "PIECE", 17)
    assert there_and_back(found)[0] == whole


@given(arrays(), st.integers(0, 7))
@toys.few_examples
def test_low_bits_that_are_all_zero_cost_nothing(values, zeros):
    values = values >> zeros << zeros
    data, (table,) = there_and_back([values])
    assert table.zeros >= zeros or not values.any()
    assert len(data) == len(there_and_back([values >> zeros])[0])


@given(st.lists(st.integers(0, entropy_coding.LARGEST_ROOT), min_size=1, max_size=300).filter(any))
@example([entropy_coding.LARGEST_ROOT] * 2**16)
@example([1, *[0] * (2**16 - 1)])
@toys.few_examples
def test_frequencies_are_whole_and_sum_up(roots):
    found = entropy_coding.frequencies(np.array(roots))
    assert found.min() >= 1
    assert found.sum() == 2**24


def read_as_documented(data, frequencies, count):
    """docs/packed-format.md, "The coded symbols", in plain Python."""
    data += bytes(-len(data) % 4)
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
    state = 0
    while words and state < 2**32:
        state = state << 32 | words.pop()
    symbols = []
    for _ in range(count):
        place = state % 2**24
        symbol, start = 0, 0
        while place >= start + frequencies[symbol]:
            start += frequencies[symbol]
            symbol += 1
        state = (state >> 24) * frequencies[symbol] + place - start
        if state < 2**32 and words:
            state = state << 32 | words.pop()
        symbols.append(symbol)
    assert state == 2**24
    assert not words
    return symbols


ROOTS = np.array([0, 1, 1, 3, 5, 9, 20, 30, 21, 9, 5, 2, 1, 1, 1])
FREQUENCIES = entropy_coding.frequencies(ROOTS).tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 10, 2000])
@pytest.mark.parametrize(
    ("table", "frequencies"),
    [
        (Table(0, -7, ROOTS), FREQUENCIES),
        # Low bits that are zero, and low bits alone.
        (Table(0, -7, ROOTS, 3), FREQUENCIES),
        (Table(3, 0, np.array([1])), [2**21] * 8),
    ],
)
def test_the_stream_is_read_by_the_documentation_alone(count, table, frequencies):
    """Whole-numbered probabilities: none of the coder's rounding is left to a reader's luck."""
    symbols = (laplace(count, 1.5, bits=4) + 7) % len(frequencies)
    values = symbols + table.least << table.zeros
    data = entropy_coding.encode([values], [table])
    assert read_as_documented(data, frequencies, count) == symbols.tolist()
    assert np.array_equal(entropy_coding.decode(data, [table], [(count, np.int8)])[0], values)


@pytest.mark.parametrize(
    ("data", "table", "dtype", "problem"),
    [
        (b"\1\0", Table(0, 0, np.array([1, 1])), np.int8, "byte too many"),
        (b"\1" * 40, Table(0, 0, np.array([1, 1])), np.int8, "do not end"),
        (b"", Table(0, -129, np.array([1, 1])), np.int8, "out of range"),
        (b"", Table(3, 15, np.array([1, 1])), np.int8, "out of range"),
        (b"", Table(0, 15, np.array([1, 1]), 3), np.int8, "out of range"),
        (b"", Table(0, -1, np.array([1, 1])), np.uint16, "out of range"),
        (b"", Table(16, 2**31 - 1, np.array([1])), np.int16, "out of range"),
    ],
)
def test_a_stream_that_is_not_one_is_refused(data, table, dtype, problem):
    with pytest.raises(ValueError, match=problem):
        entropy_coding.decode(data, [table], [(3, dtype)])
