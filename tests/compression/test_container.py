"""The frame of a packed file: one checksum over all of it, compared before anything is believed."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.compression import container
from stages.lib.compression.container import UnsoundError
from tests import toys

FILE = container.wrap(b"about" * 20, b"payload")


def refusal(data):
    with pytest.raises(UnsoundError) as caught:
        container.unwrap(data)
    return str(caught.value)


@given(st.binary(max_size=300), st.binary(max_size=300))
@toys.few_examples
def test_what_is_unwrapped_is_what_was_wrapped(metadata, payload):
    assert container.unwrap(container.wrap(metadata, payload)) == (metadata, payload)


def test_the_frame_is_25_bytes():
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    deflated = deflater.compress(b"about" * 20) + deflater.flush()
    assert FILE[:5] == b"\x93PQN\2"
    assert int.from_bytes(FILE[5:13], "little") == len(FILE)
    assert int.from_bytes(FILE[21:25], "little") == len(deflated)
    assert FILE[25:] == deflated + b"payload"


def test_a_torn_or_longer_file_and_any_flipped_bit_are_refused():
    for length in range(len(FILE)):
        assert ("cut short" if length >= 4 else "not a packed network") in refusal(FILE[:length])
    for bit in range(8 * len(FILE)):
        changed = bytearray(FILE)
        changed[bit // 8] ^= 1 << bit % 8
        refusal(bytes(changed))
    assert "damaged" in refusal(FILE + b"\0")


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_told_from_damage(version):
    text = refusal(container.sealed(FILE[:4] + bytes([version]) + FILE[5:]))
    assert f"version {version}" in text
    assert "revision" in text
    assert "damaged" in refusal(FILE[:4] + bytes([version]) + FILE[5:])


def framed(deflated_length, rest):
    length = container.FRAME.size + len(rest)
    frame = container.FRAME.pack(
        container.MAGIC, container.VERSION, length, bytes(8), deflated_length
    )
    return container.sealed(frame + rest)


@pytest.mark.parametrize(
    ("length", "rest", "problem"),
    [
        (2**32 - 1, b"", "do not end"),
        (3, b"\xff\xff\xff", "cannot be inflated"),
        (30, FILE[25:] + bytes(30), "do not end"),
        (5, FILE[25:], "do not end"),
    ],
)
def test_metadata_that_are_none_are_refused(length, rest, problem):
    assert problem in refusal(framed(length, rest))


def test_a_bomb_is_not_inflated():
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflater.compress(bytes(2**24 + 1)) + deflater.flush()
    assert len(bomb) < 2**15
    assert "16 MiB" in refusal(framed(len(bomb), bomb))


def test_too_much_is_not_written():
    with pytest.raises(ValueError, match="more metadata"):
        container.wrap(bytes(2**24 + 1), b"")
