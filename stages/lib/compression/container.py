"""The container of a packed file: deflated metadata and a payload under one checksum.

    offset  bytes
         0      4  magic
         4      1  format version
         5      8  length of the whole file
        13      8  checksum: BLAKE2b-64 (RFC 7693) of all other bytes of the file, in their order
        21      4  length of the deflated metadata
        25         metadata, deflated (RFC 1951, without a wrapper); then the payload

Integers are unsigned and little-endian. The first 21 bytes mean the same in every version, so that
a damaged file can be told from a newer one.
"""

import hashlib
import struct
import zlib

MAGIC = b"\x93PQN"
VERSION = 2
CHECKSUM_AT, CHECKSUM_BYTES = 13, 8
FRAME = struct.Struct("<4sBQ8sI")
# Far more than a network needs. A deflated file of a few kB may inflate to a thousand times its
# size.
LARGEST_METADATA = 2**24


class UnsoundError(ValueError):
    """The bytes are not an intact file. The text says what is wrong and what to do."""

    def __init__(self, problem: str, remedy: str = "copy or make it anew") -> None:
        super().__init__(f"{problem}; {remedy}")


def require(sound: bool, problem: str) -> None:
    """Raises UnsoundError with this problem unless sound."""
    if not sound:
        raise UnsoundError(problem)


def _checksum(data: bytes) -> bytes:
    digest = hashlib.blake2b(memoryview(data)[:CHECKSUM_AT], digest_size=CHECKSUM_BYTES)
    digest.update(memoryview(data)[CHECKSUM_AT + CHECKSUM_BYTES :])
    return digest.digest()


def sealed(data: bytes) -> bytes:
    """A file's bytes with the right checksum."""
    return data[:CHECKSUM_AT] + _checksum(data) + data[CHECKSUM_AT + CHECKSUM_BYTES :]


def wrap(metadata: bytes, payload: bytes) -> bytes:
    """The bytes of a file. ValueError for more than 16 MiB of metadata."""
    if len(metadata) > LARGEST_METADATA:
        raise ValueError("more metadata than a reader takes")
    # Without zlib's wrapper, which would only add a second checksum.
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    deflated = deflater.compress(metadata) + deflater.flush()
    length = FRAME.size + len(deflated) + len(payload)
    frame = FRAME.pack(MAGIC, VERSION, length, bytes(CHECKSUM_BYTES), len(deflated))
    return sealed(b"".join((frame, deflated, payload)))


def unwrap(data: bytes) -> tuple[bytes, bytes]:
    """The metadata and payload of a file. The checksum is compared before anything else is used.

    Raises UnsoundError for another kind of file, a damaged one, or one of an unknown version.
    """
    require(data[: len(MAGIC)] == MAGIC, "not a packed network")
    require(len(data) >= FRAME.size, f"cut short: {len(data)} bytes are less than any has")
    _, version, length, checksum, deflated = FRAME.unpack_from(data)
    require(len(data) >= length, f"cut short, or damaged: {len(data)} of {length} bytes")
    intact = len(data) == length and _checksum(data) == checksum
    require(intact, "damaged: its checksum is not that of its contents")
    if version != VERSION:
        raise UnsoundError(
            f"of format version {version}, where version {VERSION} is read",
            remedy="read it with the revision of this repository that wrote it",
        )
    end = FRAME.size + deflated
    return _inflated(data[FRAME.size : end]), data[end:]


def _inflated(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        metadata = inflater.decompress(deflated, LARGEST_METADATA + 1)
    except zlib.error:
        raise UnsoundError("its metadata cannot be inflated") from None
    small = len(metadata) <= LARGEST_METADATA
    require(small, f"its metadata are more than {LARGEST_METADATA >> 20} MiB")
    ended = inflater.eof and not inflater.unused_data
    require(ended, "its metadata do not end where they should")
    return metadata
