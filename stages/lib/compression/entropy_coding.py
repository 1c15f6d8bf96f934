"""Codes integers in about as few bytes as their entropy allows, and decodes them: range asymmetric
numeral systems (Duda, Asymmetric Numeral Systems, 2013) with one histogram per array, by the coder
of `constriction`.

Low bits that are zero in every integer of an array are not coded. The rest of each integer is split
into v >> shift, which is coded by a table of frequencies, and the low `shift` bits, which are coded
as equally frequent. A table holds the rounded square roots of the counts. Rounding costs about a
quarter of a bit per table entry, however long the array is (the root is the variance-stabilizing
transform of counts; Anscombe, 1948). A decoder computes only with integers, so that every platform
decodes the same.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import constriction
import numpy as np

from stages.lib.compression import entropy
from stages.lib.compression.container import require

# Probabilities are integer multiples of 2^-24, as in constriction.
PRECISION = 24
WHOLE = 2**PRECISION
LARGEST_SHIFT = 16
# The square of this, times WHOLE, still fits into 64 bits.
LARGEST_ROOT = 2**19 - 1
# constriction takes 32-bit symbols. Arrays are cast in pieces, so that none is cast as a whole.
PIECE = 2**20
# The initial state of the coder. Only a reader that decodes exactly the symbols that were written
# ends with this state.
START = 2**PRECISION
# About what a table entry costs in a file; good enough to choose a shift.
ENTRY_BITS, EMPTY_ENTRY_BITS = 5.0, 0.5


class Table(NamedTuple):
    """How an array is coded.

    zeros: the number of low bits that are zero in all values, 0…16.
    shift: the number of low bits, above those, that are coded as equally frequent, 0…16.
    least: the smallest value of v >> zeros >> shift.
    roots: int64 [alphabet], for v >> zeros >> shift of `least`, `least` + 1, …; at least one entry,
        each 0…2^19 − 1, not all 0.
    """

    shift: int
    least: int
    roots: np.ndarray
    zeros: int = 0


# The table of an empty array.
EMPTY = Table(0, 0, np.ones(1, dtype=np.int64))


def frequencies(roots: np.ndarray) -> np.ndarray:
    """The frequencies of the symbols, int64 [alphabet], which sum to 2^24: 1 for each symbol, plus
    its share of the rest in proportion to the squared root, rounded down. The first of the largest
    gets what is left over.
    """
    squares = roots.astype(np.int64) ** 2
    free = WHOLE - len(squares)
    shares = squares * free // squares.sum()
    shares[np.argmax(squares)] += free - shares.sum()
    return shares + 1


def table_for(values: np.ndarray) -> Table:
    """The table with which an integer array takes the fewest bits, including the table. Arrays of
    few but wide values get short tables, because low bits without a pattern are split off.
    """
    if not values.size:
        return EMPTY
    joined = int(np.bitwise_or.reduce(values))
    zeros = (joined & -joined).bit_length() - 1 if joined else 0
    least, counts = entropy.histogram(values >> zeros)
    best, fewest = None, np.inf
    for shift in range(LARGEST_SHIFT + 1):
        high = least >> shift
        positions = (np.arange(least, least + len(counts)) >> shift) - high
        folded = np.bincount(positions, counts).astype(np.int64)
        roots = np.minimum(np.rint(np.sqrt(folded)).astype(np.int64), LARGEST_ROOT)
        entries = np.where(folded > 0, ENTRY_BITS, EMPTY_ENTRY_BITS).sum()
        modelled = (folded * (PRECISION - np.log2(frequencies(roots)))).sum()
        bits = values.size * shift + modelled + entries
        if bits < fewest:
            best, fewest = Table(shift, high, roots, zeros), bits
        if len(folded) == 1:
            break
    return best


def _model(frequency: np.ndarray) -> constriction.stream.model.Categorical:
    # constriction scales its input to a sum of 2^24 minus the size of the alphabet, and adds 1 to
    # each. Integers with exactly that sum are scaled by 1 and not rounded.
    return constriction.stream.model.Categorical((frequency - 1).astype(np.float64), perfect=False)


def _pieces(
    tables: Sequence[Table], lengths: Sequence[int]
) -> Iterator[tuple[int, slice, int, constriction.stream.model.Model]]:
    """What is coded at a time, in the order of decoding: the array, the piece of it, how many low
    bits of its values (0: the bits above them), and the model of these. A part of values that can
    be one number only is not coded.
    """
    for number, (table, length) in enumerate(zip(tables, lengths, strict=True)):
        parts = [(0, _model(frequencies(table.roots)))] if len(table.roots) > 1 else []
        if table.shift:
            parts.append((table.shift, constriction.stream.model.Uniform(2**table.shift)))
        for low_bits, model in parts:
            for start in range(0, length, PIECE):
                yield number, slice(start, min(start + PIECE, length)), low_bits, model


def encode(arrays: Sequence[np.ndarray], tables: Sequence[Table]) -> bytes:
    """Codes one-dimensional arrays of integers of at most 16 bits as one stream of bytes. An empty
    array, or one of equal values, adds no bytes.

    tables: one for each array, which must cover its values, as those of `table_for` do.
    """
    coder = constriction.stream.stack.AnsCoder(np.array([START], dtype=np.uint32))
    # A stack: what is to come out first goes in last.
    for number, piece, low_bits, model in reversed([*_pieces(tables, list(map(len, arrays)))]):
        table = tables[number]
        values = arrays[number][piece].astype(np.int32) >> table.zeros
        high = (values >> table.shift) - np.int32(table.least)
        coder.encode_reverse(values & (2**low_bits - 1) if low_bits else high, model)
    # The last word is not zero, but its upper bytes may be.
    return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


def decode(
    data: bytes, tables: Sequence[Table], wanted: Sequence[tuple[int, np.dtype]]
) -> list[np.ndarray]:
    """Decodes the arrays of a stream.

    wanted: the length and the integer type of each array.

    Needs a few MB of memory besides the data and the result. UnsoundError if the data are not
    exactly a stream of these arrays, or a table exceeds the range of its array's type.
    """
    require(not data.endswith(b"\0"), "the coded symbols end with a byte too many")
    words = np.frombuffer(data + bytes(-len(data) % 4), dtype="<u4").astype(np.uint32)
    coder = constriction.stream.stack.AnsCoder(words)
    arrays = []
    for table, (length, dtype) in zip(tables, wanted, strict=True):
        least = table.least << table.shift << table.zeros
        most = (((table.least + len(table.roots)) << table.shift) - 1) << table.zeros
        limits = np.iinfo(dtype)
        in_range = limits.min <= least and most <= limits.max
        require(in_range, "a table holds symbols that are out of range")
        arrays.append(np.full(length, least, dtype=dtype))
    for number, piece, low_bits, model in _pieces(tables, list(map(len, arrays))):
        symbols = coder.decode(model, piece.stop - piece.start)
        shift = tables[number].zeros + (0 if low_bits else tables[number].shift)
        # Wraps where the type is signed, and back.
        arrays[number][piece] += (symbols << shift).astype(wanted[number][1])
    ended = coder.num_words() == 1 and coder.get_compressed()[0] == START
    require(ended, "the coded symbols do not end where they should")
    return arrays
