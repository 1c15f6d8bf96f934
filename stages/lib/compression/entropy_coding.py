"""Integers to bytes and back, close to their entropy: range asymmetric numeral systems (Duda,
Asymmetric Numeral Systems, 2013) with one histogram per array, by the coder of `constriction`.

Low bits that are zero in every integer of an array are not coded. What stands above them is split
into v >> shift, which is coded by a table of how often it occurs, and the low `shift` bits, which
are taken as they come. A table is the square roots of the counts, rounded:
the rounding costs about a quarter of a bit per table entry in all, however long the array (the root
is the variance-stabilising transform of counts; Anscombe, 1948). Everything that a decoder computes
from a table is whole numbers, so that every platform decodes the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import constriction
import numpy as np

from stages.lib.compression import entropy

# Probabilities are whole multiples of 2^-24: what constriction works with.
PRECISION = 24
WHOLE = 2**PRECISION
LARGEST_SHIFT = 16
LARGEST_ALPHABET = 2**16
# Its square, times WHOLE, still fits into 64 bits.
LARGEST_ROOT = 2**19 - 1
# constriction takes 32-bit symbols: in pieces, so that a large array is never held so wide.
PIECE = 2**20
# What the coder starts from. Each symbol that is read beyond the end makes it smaller: only who
# reads just the symbols that were written finds it again.
START = 2**PRECISION
# About what an entry of a table costs in a file: the choice of a shift need not know it better.
ENTRY_BITS, EMPTY_ENTRY_BITS = 5.0, 0.5


class Table(NamedTuple):
    """How an array is coded. shift: 0…16; roots: int64 [alphabet], at least one entry, for v >>
    zeros >> shift of `least`, `least` + 1, …; each 0…2^19 − 1, and not all 0; zeros: low bits that
    are zero in all of the array, 0…16.
    """

    shift: int
    least: int
    roots: np.ndarray
    zeros: int = 0


# Of an array without values.
EMPTY = Table(0, 0, np.ones(1, dtype=np.int64))


def _roots(counts: np.ndarray) -> np.ndarray:
    roots = np.rint(np.sqrt(counts)).astype(np.int64)
    return np.minimum(roots, LARGEST_ROOT)


def frequencies(roots: np.ndarray) -> np.ndarray:
    """int64 [alphabet], each at least 1, summing to 2^24, proportional to the squares: one for each
    symbol, its share of the rest rounded down, and what is left over for the first of the largest.
    """
    squares = roots.astype(np.int64) ** 2
    free = WHOLE - len(squares)
    shares = squares * free // squares.sum()
    shares[np.argmax(squares)] += free - shares.sum()
    return shares + 1


def payload_bits(table: Table, values: np.ndarray) -> float:
    """What `encode` takes for these values. A stream is the sum of its arrays, and 3 to 6 bytes."""
    least, counts = entropy.histogram(values >> table.zeros >> table.shift)
    return values.size * table.shift + _modelled_bits(table, least, counts)


def _modelled_bits(table: Table, least: int, counts: np.ndarray) -> float:
    if len(table.roots) == 1:
        return 0.0
    start = least - table.least  # a table may be wider than the values
    used = frequencies(table.roots)[start : start + len(counts)]
    return float((counts * (PRECISION - np.log2(used))).sum())


def _low_zeros(values: np.ndarray) -> int:
    """How many low bits are zero in every value; 0 where all values are 0."""
    joined = int(np.bitwise_or.reduce(values))
    return (joined & -joined).bit_length() - 1 if joined else 0


def table_for(values: np.ndarray) -> Table:
    """The table by which an integer array takes the fewest bits, the table's own counted. Few
    values of many bits get short tables: low bits that show no pattern are split off.

    Raises ValueError where values are 2^16 or more apart.
    """
    if not values.size:
        return EMPTY
    if int(values.max()) - int(values.min()) >= LARGEST_ALPHABET:
        raise ValueError("integers of more than 16 bits are not coded")
    zeros = _low_zeros(values)
    least, counts = entropy.histogram(values >> zeros)
    best, fewest = None, np.inf
    for shift in range(LARGEST_SHIFT + 1):
        high = least >> shift
        positions = (np.arange(least, least + len(counts)) >> shift) - high
        folded = np.bincount(positions, counts).astype(np.int64)
        table = Table(shift, high, _roots(folded), zeros)
        entries = np.where(folded > 0, ENTRY_BITS, EMPTY_ENTRY_BITS).sum()
        bits = values.size * shift + _modelled_bits(table, high, folded) + entries
        if bits < fewest:
            best, fewest = table, bits
        if len(folded) == 1:
            break
    return best


def _model(frequency: np.ndarray) -> constriction.stream.model.Categorical:
    # constriction scales what it is given so that 2^24 less the alphabet's size is shared out, and
    # adds 1 each. Given whole numbers of just that sum, it scales by 1 and rounds nothing.
    return constriction.stream.model.Categorical((frequency - 1).astype(np.float64), perfect=False)


def _parts(table: Table) -> list[tuple[int, constriction.stream.model.Model]]:
    """The parts of a value in the order in which they are decoded: how many low bits it is (0: what
    stands above them), and its model. What has one possible value is not coded.
    """
    parts = []
    if len(table.roots) > 1:
        parts.append((0, _model(frequencies(table.roots))))
    if table.shift:
        parts.append((table.shift, constriction.stream.model.Uniform(2**table.shift)))
    return parts


def _symbols(values: np.ndarray, table: Table, low_bits: int) -> np.ndarray:
    wide = values.astype(np.int32) >> table.zeros
    if low_bits:
        return wide & (2**low_bits - 1)
    return (wide >> table.shift) - np.int32(table.least)


def encode(arrays: Sequence[np.ndarray], tables: Sequence[Table]) -> bytes:
    """One-dimensional arrays of integers of at most 16 bits, each by its table, as one stream of
    bytes. An empty array, or one whose values are all the same, adds none.

    A table must cover its array: `table_for` gives one that does.
    """
    coder = constriction.stream.stack.AnsCoder(np.array([START], dtype=np.uint32))
    # A stack: what is to come out first goes in last.
    for values, table in reversed(list(zip(arrays, tables, strict=True))):
        for low_bits, model in reversed(_parts(table)):
            for start in reversed(range(0, len(values), PIECE)):
                piece = _symbols(values[start : start + PIECE], table, low_bits)
                coder.encode_reverse(piece, model)
    # The last word is not zero, but its upper bytes may be.
    return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


def decode(
    data: bytes, tables: Sequence[Table], lengths: Sequence[int], dtypes: Sequence[np.dtype]
) -> list[np.ndarray]:
    """The arrays that `encode` was given, of these lengths and integer types.

    Takes a few MB of memory beyond the data and the result, whatever they are. ValueError where the
    data are not a whole stream of these arrays, or a table reaches beyond its array's type.
    """
    if data.endswith(b"\0"):
        raise ValueError("the coded symbols end with a byte too many")
    words = np.frombuffer(data + bytes(-len(data) % 4), dtype="<u4").astype(np.uint32)
    coder = constriction.stream.stack.AnsCoder(words)
    found = []
    for table, length, dtype in zip(tables, lengths, dtypes, strict=True):
        least = table.least << table.shift << table.zeros
        most = (((table.least + len(table.roots)) << table.shift) - 1) << table.zeros
        if least < np.iinfo(dtype).min or most > np.iinfo(dtype).max:
            raise ValueError("a table holds symbols that are out of range")
        values = np.full(length, least, dtype=dtype)
        for low_bits, model in _parts(table):
            for start in range(0, length, PIECE):
                piece = values[start : start + PIECE]
                symbols = coder.decode(model, len(piece))
                # Wraps where the type is signed, and back.
                high = symbols if low_bits else symbols << table.shift
                piece += (high << table.zeros).astype(dtype)
        found.append(values)
    if coder.num_words() != 1 or coder.get_compressed()[0] != START:
        raise ValueError("the coded symbols do not end where they should")
    return found
